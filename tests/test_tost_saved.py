"""Ghosts are saved, copied and moved with their model."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.nn import functional as F

from sparseflow import tost
from sparseflow.core import BadValue
from sparseflow.tost import Fade
from sparseflow.tost.skips import skips_of
from tost_nets import batch, both, net, sgd, skeleton, train


@pytest.mark.parametrize("shortcut", ["pool", "conv"])
@pytest.mark.parametrize("stopped_at", [0, 3, 5, 8])
def test_resumed_in_the_midst_of_it_it_ends_with_the_same_bits(stopped_at, shortcut):
    def start() -> tuple:
        model = net()
        ghosts = (
            tost.ghost_neurons_(model, Fade("linear", 4)),
            tost.ghost_skips_(model, Fade("cosine", 6), batch(0)[0], shortcut=shortcut),
        )
        return model, sgd(model), ghosts

    unbroken = start()
    losses = train(*unbroken, range(10))
    first = start()
    train(*first, range(stopped_at))
    model, optimizer, ghosts = first
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), [g.state_dict() for g in ghosts]], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer, ghosts = start()
    for one, state in zip(ghosts, saved[2], strict=True):
        one.load_state_dict(state)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    assert train(model, optimizer, ghosts, range(stopped_at, 10)) == losses[stopped_at:]
    for a, b in zip(model.state_dict().values(), unbroken[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_states_of_other_ghosts_are_refused():
    x = batch(0)[0]
    neurons, skips = both(net(), Fade("linear", 4), x)
    with pytest.raises(BadValue, match="not a state of ghost skips"):
        skips.load_state_dict(neurons.state_dict())
    with pytest.raises(BadValue, match="not a state of ghost skips: nothing"):
        skips.load_state_dict({})
    other = both(net(), Fade("cosine", 40), x)[1]
    other.step()
    with pytest.raises(BadValue, match="another fade"):
        skips.load_state_dict(other.state_dict())
    assert skips.steps == 0
    skips.finish()
    with pytest.raises(BadValue, match="are gone from this model"):
        skips.load_state_dict(both(net(), Fade("linear", 4), x)[1].state_dict())


COPIES = {"copy": copy.deepcopy, "pickle": lambda ghosts: pickle.loads(pickle.dumps(ghosts))}


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
def test_a_copy_brings_its_own_model_and_ghosts(how):
    x, y = batch(0)
    model = net()
    ghosts = both(model, Fade("linear", 5), x)
    F.cross_entropy(model(x), y)
    assert all(skip._input is None for skip in skips_of(model))  # nothing of a forward pass stays
    twins = how(ghosts)
    twin = twins[0].model
    assert twin is twins[1].model
    assert twin is not model
    assert torch.equal(twin(x), model(x))
    start = model(x)
    for one in twins:
        one.step()
    assert torch.equal(model(x), start)
    for one in ghosts:
        one.step()
    assert torch.equal(twin(x), model(x))
    for one in twins:
        one.finish()
    assert skeleton(twin) == skeleton(net())
    assert not torch.equal(twin(x), model(x))
    assert ghosts[1].alpha == 0.75


def test_ghosts_in_a_copy_of_the_bare_model_can_be_removed():
    """As an average of weights makes one."""
    x, model = batch(0)[0], net()
    both(model, Fade("linear", 5), x)
    average = torch.optim.swa_utils.AveragedModel(model)
    assert tost.remove_(average) is average
    assert skeleton(average.module) == skeleton(net())
    assert torch.equal(average(x), net()(x))
    assert not torch.equal(model(x), net()(x))


def test_ghosts_move_with_their_model():
    x, model = batch(0)[0], net()
    both(model, Fade("constant", alpha=0.3), x)
    expected = model(x)
    assert expected.dtype is torch.float32
    assert model.double()(x.double()).dtype is torch.float64
    torch.testing.assert_close(model(x.double()).float(), expected, rtol=1e-3, atol=1e-4)
    assert model.bfloat16()(x.bfloat16()).dtype is torch.bfloat16
    assert len(list(model.buffers())) == len(list(net().buffers()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.float()(x)).all()


def test_ghosts_say_where_they_are():
    neurons, skips = both(net(), Fade("linear", 5), batch(0)[0])
    assert repr(skips) == "GhostSkips(7 places until step 5; alpha 1 at step 0)"
    kept = tost.ghost_neurons_(net(), Fade("constant", alpha=0.5))
    assert repr(kept) == "GhostNeurons(7 places for ever; alpha 0.5 at step 0)"
    neurons.finish()
    assert repr(neurons) == "GhostNeurons(finished; 0 steps)"
