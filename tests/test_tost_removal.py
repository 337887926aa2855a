"""Ghosts fade in a training and leave the plain network behind."""

from __future__ import annotations

import pytest
import torch

from sparseflow import tost
from sparseflow.tost import BETA_MAX, Fade
from sparseflow.tost.skips import skips_of
from tost_nets import SIZES, batch, both, loss_of, net, sgd, skeleton, train

ZOO = [
    pytest.param("resnet", {"depth": 20, "width": 4}, id="resnet-20", marks=pytest.mark.slow),
    pytest.param("resnet", {"depth": 32, "width": 4}, id="resnet-32", marks=pytest.mark.slow),
    pytest.param("resnet-18", {"width": 4}, id="resnet-18"),
    pytest.param("resnet-50", {"width": 4}, id="resnet-50", marks=pytest.mark.slow),
    pytest.param("vgg16", {"width": 4}, id="vgg16"),
    pytest.param("mobilenet-v1", {"width": 8}, id="mobilenet-v1"),
    pytest.param("mobilenet-v2", {"width": 8}, id="mobilenet-v2", marks=pytest.mark.slow),
    pytest.param("wide-resnet", {"depth": 10, "width": 8}, id="wide-resnet"),
]


@pytest.mark.parametrize("shortcut", ["pool", "conv"])
@pytest.mark.parametrize(("name", "options"), ZOO)
def test_what_is_left_behind_is_the_plain_network(name, options, shortcut):
    size = SIZES.get(name, 8)
    model, fresh = net(name, **options), net(name, seed=1, **options)
    before = skeleton(model)
    x = batch(0, size)[0]
    neurons = tost.ghost_neurons_(model, Fade("cosine", 4))
    skips = tost.ghost_skips_(model, Fade("linear", 3), x, shortcut=shortcut)
    assert (model.state_dict().keys() == fresh.state_dict().keys()) == (shortcut == "pool")
    train(model, sgd(model), (neurons, skips), range(5), size)
    assert neurons.finished
    assert skips.finished
    assert skeleton(model) == before
    assert model.state_dict().keys() == fresh.state_dict().keys()
    fresh.load_state_dict(model.state_dict())
    for training in (False, True):
        outputs = [m.train(training)(x) for m in (model, fresh)]
        assert torch.equal(*outputs)
        assert torch.isfinite(outputs[0]).all()


def test_the_last_ghost_step_is_all_but_the_plain_network():
    """alpha is exactly 0, beta at its maximum; what a removal changes is measured."""
    x = batch(0)[0]
    model = net()
    neurons, skips = both(model, Fade("cosine", 6), x, probe=x)
    optimizer = sgd(model)
    train(model, optimizer, (neurons, skips), range(5))
    assert (skips.alpha, neurons.beta, neurons.steps) == (0.0, BETA_MAX, 5)
    assert {float(skip.alpha) for skip in skips_of(model)} == {0.0}
    assert {float(m.ghost_beta) for m in model.modules() if hasattr(m, "ghost_beta")} == {BETA_MAX}
    train(model, optimizer, (), range(5, 6))
    with torch.no_grad():
        ghostly = model.eval()(x)
        for one in (skips, neurons):
            one.step()
        change = float((model(x) - ghostly).abs().max())
    assert skips.largest_change == 0.0
    assert neurons.largest_change == change
    assert 0 < change < 1e-3


def test_an_abrupt_removal_changes_more():
    x = batch(0)[0]
    for one in both(net(), Fade("constant", 2), x, probe=x):
        one.step()
        assert not one.finished
        assert one.alpha == 1.0
        one.step()
        assert one.finished
        assert one.largest_change > 0.01


def test_ghosts_kept_for_ever_are_finished_by_hand():
    x, model = batch(0)[0], net()
    before = skeleton(model)
    ghosts = both(model, Fade("constant"), x)
    train(model, sgd(model), ghosts, range(20))
    assert all(one.alpha == 1.0 for one in ghosts)
    assert all(one.finish() is model for one in ghosts)
    assert skeleton(model) == before
    assert ghosts[0].finish() is model  # a second time does nothing


def test_a_fade_is_what_each_step_sees():
    """The losses of a training whose alpha and beta are set by hand."""
    x = batch(0)[0]
    driven = net()
    losses = train(driven, sgd(driven), both(driven, Fade("linear", 5), x), range(7))
    by_hand, again = net(), []
    optimizer = sgd(by_hand)
    for step, alpha in enumerate((1, 0.75, 0.5, 0.25, 0, None, None)):
        if alpha is not None:
            ghosts = both(by_hand, Fade("constant", alpha=alpha), x)
        again += train(by_hand, optimizer, (), range(step, step + 1))
        for one in ghosts:
            one.finish()
    assert losses == pytest.approx(again, rel=1e-6)
    plain = net()
    assert train(plain, sgd(plain), (), range(7))[1:] != pytest.approx(again[1:], rel=1e-2)


def removal(shape: str, end: int = 90) -> tuple[float, float]:
    """By how much the removal changes the training loss, and the deviation of that loss over the 50 steps before."""
    x, model = batch(0)[0], net()
    ghosts = both(model, Fade(shape, end, alpha=0.5), x)
    optimizer = sgd(model)
    losses = train(model, optimizer, ghosts, range(end - 1))
    losses += train(model, optimizer, (), range(end - 1, end))
    assert not any(one.finished for one in ghosts)
    before = loss_of(model, end)
    for one in ghosts:
        one.step()
    assert all(one.finished for one in ghosts)
    return abs(loss_of(model, end) - before), float(torch.tensor(losses[-50:]).std())


def test_the_training_loss_does_not_notice_that_faded_ghosts_go():
    change, deviation = removal("linear")
    assert change < deviation
    assert 100 * change < removal("constant")[0], "else the test would see nothing"
