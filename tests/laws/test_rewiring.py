"""Every rewiring rule, in masked and compact layers: exact counts, clean new weights, growth where the rule says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparseflow.core import SparseflowError, stand_ins
from sparseflow.init import draw_
from sparseflow.masks import random_masks
from sparseflow.sparse import compact
from sparseflow.train import Pair, Rewire, Sparse, rewirings

OPTIMIZERS = {
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.02, momentum=0.9),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.002, momentum=0.5),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=0.05, initial_accumulator_value=0.2),
}
START = {"adagrad": {"sum": 0.2}}
EXECUTIONS = ("masked", "compact")


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20, bias=False), nn.ReLU(), nn.Linear(20, 4))


def conv():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


NETS = {"mlp": mlp, "conv": conv}


def made(net, execution, rule=None, optimizer="momentum", density=0.3, dtype=torch.float64, dense=()):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETS[net]().to(dtype)
    shapes = {n: p.shape for n, p in model.named_parameters() if p.dim() > 1}
    counts = {n: s.numel() if n in dense else max(1, round(density * s.numel())) for n, s in shapes.items()}
    masks = random_masks(shapes, counts, seed=1)
    draw_(model, masks, seed=2)
    if execution == "compact":
        assert compact(model, masks).compacted == tuple(masks)
    return model, Sparse(model, masks, OPTIMIZERS[optimizer](model.parameters()), rule)


def batch(step, dtype=torch.float64, n=16):
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randn(n, 3, 4, 4, generator=draw, dtype=dtype), torch.randint(0, 4, (n,), generator=draw)


def train(model, sparse, step, n=16):
    x, y = batch(step, next(model.parameters()).dtype, n)
    sparse.optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    sparse.optimizer.step()


def weights(model):
    compact_ = stand_ins(model)
    return {
        n: compact_[n].dense_weight() if n in compact_ else model.get_parameter(n).detach().clone()
        for n in names(model)
    }


def names(model):
    return [*stand_ins(model)] or [n for n, p in model.named_parameters() if p.dim() > 1]


def state_of(sparse, name):
    """State key -> dense tensor of the elementwise state of one weight; what is not active is NaN in compact layers."""
    layer = stand_ins(sparse.model).get(name)
    if layer is None:
        p = sparse.model.get_parameter(name)
        return {
            k: v for k, v in sparse.optimizer.state[p].items() if isinstance(v, torch.Tensor) and v.shape == p.shape
        }
    found = {}
    for key, value in sparse.optimizer.state[layer.values].items():
        if isinstance(value, torch.Tensor) and value.shape == layer.values.shape:
            dense = torch.full((layer.weight_shape.numel(),), torch.nan, dtype=value.dtype)
            dense[layer.structure.flat()] = value
            found[key] = dense.view(layer.weight_shape)
    return found


@pytest.mark.parametrize("updates", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", rewirings.names)
def test_counts_never_change(rule, net, execution, updates):
    engine = Rewire(rule, every=1, stop=updates + 1, decay="constant")
    model, sparse = made(net, execution, engine, dtype=torch.float32)
    before = {n: int(m.sum()) for n, m in sparse.masks.items()}
    seen = {n: m.clone() for n, m in sparse.masks.items()}
    for step in range(updates):
        train(model, sparse, step, n=4)
        for name, mask in sparse.masks.items():
            assert int(mask.sum()) == before[name]
            assert not weights(model)[name][~mask].any()
            seen[name] |= mask
    assert sparse.changes == updates
    explored = sum(int(m.sum()) for m in seen.values()) / sum(m.numel() for m in seen.values())
    assert sparse.explored_share() == explored > 0.31


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("keep_regrown", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", rewirings.names)
def test_grown_weights_start_at_0_with_clean_state(rule, optimizer, keep_regrown, execution):
    engine = Rewire(rule, every=5, stop=100, fraction=0.6, keep_regrown=keep_regrown)
    model, sparse = made("conv", execution, engine, optimizer)
    told = []
    sparse.watch = lambda moment, changes: told.append((moment, changes))
    for step in range(20):
        masks, values = {n: m.clone() for n, m in sparse.masks.items()}, weights(model)
        changes = sparse.changes
        train(model, sparse, step)
        if sparse.changes == changes:
            continue
        _, reported = told[-1]
        for name, mask in sparse.masks.items():
            again = torch.zeros_like(mask).flatten()
            again[reported[name].grow] = True
            again = again.view(mask.shape)
            assert torch.equal(again & mask, again)
            if keep_regrown:
                assert torch.equal(again, mask & ~masks[name])
            else:
                assert not (mask & ~masks[name] & ~again).any()
            assert not weights(model)[name][again].any()
            # The update replaces the step: what stays has not moved.
            stays = mask & ~again
            assert torch.equal(weights(model)[name][stays], values[name][stays])
            for key, state in state_of(sparse, name).items():
                assert (state[again] == START.get(optimizer, {}).get(key, 0.0)).all(), key
                assert torch.isfinite(state[mask]).all()
    assert [moment for moment, _ in told] == ["before", "after"] * 4


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", ["rigl", "rigl-inverted"])
def test_growth_is_the_top_of_the_dense_gradient_by_brute_force(rule, net, execution):
    engine = Rewire(rule, every=4, stop=100, fraction=0.4, decay="constant")
    model, sparse = made(net, execution, engine)
    for step in range(12):
        masks, values = {n: m.clone() for n, m in sparse.masks.items()}, weights(model)
        twin = NETS[net]().double()
        twin.load_state_dict(model.state_dict())
        x, y = batch(step)
        F.cross_entropy(twin(x), y).backward()
        train(model, sparse, step)
        for name, mask in sparse.masks.items():
            if (step + 1) % 4:
                assert torch.equal(mask, masks[name])
                continue
            active = int(masks[name].sum())
            count = int(0.4 * active)
            magnitude = values[name].abs().masked_fill(~masks[name], torch.inf).flatten()
            dropped = set(magnitude.topk(count, largest=False).indices.tolist())
            gradient = twin.get_parameter(name).grad.abs().flatten()
            free = [k for k in range(mask.numel()) if not masks[name].flatten()[k] or k in dropped]
            order = sorted(free, key=lambda k: float(gradient[k]), reverse=rule == "rigl")
            kept = set(masks[name].flatten().nonzero().flatten().tolist()) - dropped
            now = set(mask.flatten().nonzero().flatten().tolist())
            assert kept <= now
            # Units that are off have gradients of exactly 0: which of those are grown is a matter of chance.
            assert sorted(float(gradient[k]) for k in now - kept) == sorted(float(gradient[k]) for k in order[:count])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", rewirings.names)
@pytest.mark.parametrize("replace_step", [True, False])
def test_compact_and_masked_layers_are_rewired_alike(rule, net, replace_step):
    runs = {}
    for execution in EXECUTIONS:
        engine = Rewire(rule, every=3, stop=60, replace_step=replace_step)
        model, sparse = made(net, execution, engine, "adam")
        history = []
        for step in range(60):
            train(model, sparse, step)
            history.append(({n: m.clone() for n, m in sparse.masks.items()}, weights(model)))
        runs[execution] = history
    for (masks, values), (others, other_values) in zip(runs["masked"], runs["compact"], strict=True):
        for name in masks:
            assert torch.equal(masks[name], others[name])
            torch.testing.assert_close(values[name], other_values[name], rtol=1e-8, atol=1e-10)


def test_set_grows_every_free_weight_equally_often():
    counts = torch.zeros(80)
    for seed in range(400):
        model, sparse = made("mlp", "masked", Rewire("set", every=1, stop=2, fraction=0.5, seed=seed), density=0.25)
        before = sparse.masks["3.weight"].flatten().clone()
        train(model, sparse, 0)
        after = sparse.masks["3.weight"].flatten()
        counts += (after & ~before).float()
        assert int(after.sum()) == 20
    free = counts[~before]
    assert not counts[before].any()
    # Each of 60 free (or just dropped) weights is drawn with probability about 1/7 in 400 draws.
    assert float(free.std()) < 2.0 * float(free.mean()) ** 0.5
    assert free.min() > 0


def test_drop_fraction_follows_its_decay():
    half = Rewire("set", every=10, stop=100, fraction=0.3)
    assert [half.drop_fraction(t) for t in (0, 50, 100)] == pytest.approx([0.3, 0.15, 0.0])
    assert Rewire("set", every=10, stop=100, decay="constant").drop_fraction(90) == 0.3
    assert Rewire("set", every=10, stop=100, decay="rate").drop_fraction(90, 0.1) == pytest.approx(0.03)
    due = [step for step in range(120) if half.due(step)]
    assert due == list(range(10, 100, 10))


def test_the_rate_that_a_rule_sees_is_the_optimisers():
    engine = Rewire("set", every=1, stop=100, decay="rate", fraction=0.5)
    model, sparse = made("mlp", "masked", engine)
    moved = []
    for step in range(3):
        before = {n: m.clone() for n, m in sparse.masks.items()}
        for group in sparse.optimizer.param_groups:
            group["lr"] = 0.02 / 10**step
        told = []
        sparse.watch = lambda _, changes, told=told: told.append(changes)
        train(model, sparse, step)
        moved.append(sum(int((m & ~before[n]).sum()) for n, m in sparse.masks.items()))
    assert moved[0] > 3 * moved[1] > 0
    assert moved[1] > 3 * moved[2]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_accumulated_over_batches_are_all_seen(execution):
    """Two half batches grow what the whole batch grows; a pass whose gradients were cleared counts for nothing."""
    grown = {}
    for how in ("whole", "halves", "after a cleared pass", "after one set to zero"):
        model, sparse = made("mlp", execution, Rewire("rigl", every=1, stop=2, fraction=0.5))
        x, y = batch(0)
        parts = [(x, y, 1.0)] if how != "halves" else [(x[:8], y[:8], 0.5), (x[8:], y[8:], 0.5)]
        sparse.optimizer.zero_grad()
        if "after" in how:
            other, target = batch(7)
            (50 * F.cross_entropy(model(other), target)).backward()
            sparse.optimizer.zero_grad(set_to_none=how == "after a cleared pass")
        for inputs, targets, share in parts:
            (share * F.cross_entropy(model(inputs), targets)).backward()
        sparse.optimizer.step()
        grown[how] = {n: m.clone() for n, m in sparse.masks.items()}
    for how, masks in grown.items():
        assert all(torch.equal(masks[n], m) for n, m in grown["whole"].items()), how


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_replaced_step_leaves_no_trace_of_itself(execution):
    model, sparse = made("conv", execution, Rewire("rigl", every=4, stop=9), "adam")
    for step in range(3):
        train(model, sparse, step)
    buffers = {k: v.clone() for k, v in model.named_parameters() if "weight" not in k and "values" not in k}
    steps = {k: float(s["step"]) for k, s in sparse.optimizer.state.items()}
    train(model, sparse, 3)
    assert sparse.changes == 1
    assert all(torch.equal(v, dict(model.named_parameters())[k]) for k, v in buffers.items())
    assert {k: float(s["step"]) for k, s in sparse.optimizer.state.items()} == steps
    train(model, sparse, 4)
    assert any(not torch.equal(v, dict(model.named_parameters())[k]) for k, v in buffers.items())


def test_dense_layers_are_passed_over_and_one_weight_stays():
    engine = Rewire("rigl", every=1, stop=10, fraction=0.9)
    model, sparse = made("conv", "masked", engine, dense=("0.weight",), density=0.001)
    assert int(sparse.masks["6.weight"].sum()) == 1
    before = {n: m.clone() for n, m in sparse.masks.items()}
    for step in range(5):
        train(model, sparse, step)
    assert sparse.masks["0.weight"].all()
    assert torch.equal(sparse.masks["6.weight"], before["6.weight"])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_copy_and_a_state_go_on_like_the_original(execution):
    engine = Rewire("rigl", every=3, stop=100)
    model, sparse = made("conv", execution, engine, "adam")
    for step in range(7):
        train(model, sparse, step)
    other = copy.deepcopy(sparse)
    again_model, again = made("conv", execution, engine, "adam")
    again.load_state_dict(copy.deepcopy(sparse.state_dict()))
    again_model.load_state_dict(model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(sparse.optimizer.state_dict()))
    for step in range(7, 16):
        for one in (sparse, other, again):
            train(one.model, one, step)
    for one in (other, again):
        assert one.steps == sparse.steps == 16
        assert one.explored_share() == sparse.explored_share()
        for name, weight in weights(model).items():
            assert torch.equal(weights(one.model)[name], weight)
            assert torch.equal(one.masks[name], sparse.masks[name])


def test_a_rule_of_ones_own_is_a_few_lines():
    """Drops the largest, grows where the gradient is most positive: anything of the scene will do."""
    pair = Pair(lambda layer: -layer.values, lambda layer: layer.gradient, needs_gradient=True)
    model, sparse = made("mlp", "masked", Rewire(pair, every=1, stop=2, fraction=0.5))
    values, mask = weights(model)["3.weight"], sparse.masks["3.weight"].clone()
    train(model, sparse, 0)
    gone = mask & ~sparse.masks["3.weight"]
    assert gone.any()
    assert values[gone].min() >= values[mask & ~gone].median()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every": 0}, "every .* must be at least 1, got 0"),
        ({"fraction": 0.0}, r"fraction to drop must be in \(0, 1\], got 0"),
        ({"fraction": 1.5}, r"fraction to drop must be in \(0, 1\], got 1.5"),
        ({"start": 50, "stop": 40}, "must stop after it starts, got start 50, stop 40"),
        ({"decay": "cosin"}, "unknown drop decay 'cosin' .* did you mean 'cosine'"),
        ({"pair": "rigle"}, "unknown rewiring rule 'rigle' .* did you mean 'rigl'"),
    ],
)
def test_bad_input_is_one_clear_sentence(settings, words):
    with pytest.raises(SparseflowError, match=words):
        Rewire(**({"pair": "set", "stop": 100} | settings))
