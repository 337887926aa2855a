"""Gradient flow against numbers worked out by hand, and against autograd on a dense network written here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, Metric, weight_shapes
from sparseflow.masks import random_masks
from sparseflow.measure import MEASURES, GradientFlowProbe, gradient_flow
from sparseflow.models import MLP
from sparseflow.sparse import compact

Batches = list[tuple[Tensor, Tensor]]


# By hand -------------------------------------------------------------------------------------------------------------


def two_layers() -> tuple[nn.Module, dict[str, Tensor], Batches]:
    """y = V W x with W = [[1, 0], [2, -1]] (its upper right weight masked) and V = [1, 3], two examples.

    C = mean over the examples of (y - t)^2 / 2.

    Example 1: x = (1, 2):  h = W x = (1, 0),  y = 1 + 0 = 1,   t = 0,  e = y - t = 1.
    Example 2: x = (-1, 1): h = (-1, -3),      y = -1 - 9 = -10, t = -8, e = -2.

    dC/dV = mean e h = [(1, 0) + (2, 6)] / 2 = (1.5, 3).
    dC/dW = mean e V^T x^T: V^T = (1, 3) down the rows; mean e x = [(1, 2) + (2, -2)] / 2 = (1.5, 0),
            so the rows are (1.5, 0) and (4.5, 0).
    """
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 3.0]]))
    masks = {
        "0.weight": torch.tensor([[True, False], [True, True]]),
        "1.weight": torch.tensor([[True, True]]),
    }
    x = torch.tensor([[1.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
    t = torch.tensor([[0.0], [-8.0]], dtype=torch.float64)
    return model, masks, [(x, t)]


def half_square(y: Tensor, t: Tensor) -> Tensor:
    return ((y - t) ** 2 / 2).mean()


def test_by_hand():
    model, masks, batches = two_layers()
    flow = gradient_flow(model, half_square, batches, masks)
    first, second = flow.layers["0.weight"], flow.layers["1.weight"]
    assert (first.l1, first.l2) == pytest.approx((6.0, sqrt(2.25 + 20.25)))
    assert (second.l1, second.l2) == pytest.approx((4.5, sqrt(2.25 + 9)))
    assert (first.active, second.active) == (3, 2)
    assert flow.gf_1 == pytest.approx(10.5)
    assert flow.gf_2 == pytest.approx(sqrt(22.5 + 11.25))
    # The masked weight's gradient is 0 here, so the active norms are the whole ones.
    assert flow.egf_1 == pytest.approx(10.5 / 2)
    assert flow.egf_2 == pytest.approx((sqrt(22.5) + sqrt(11.25)) / 2)
    assert flow.squared == pytest.approx(22.5 + 11.25)


def test_by_hand_a_masked_weight_counts_in_gf_and_not_in_egf():
    """The other mask: W's lower left weight is off, W = [[1, 0], [0, -1]].

    Example 1: h = (1, -2),  y = 1 - 6 = -5,   t = -7, e = 2.
    Example 2: h = (-1, -1), y = -1 - 3 = -4,  t = -3, e = -1.
    dC/dV = [(2, -4) + (1, 1)] / 2 = (1.5, -1.5).
    mean e x = [(2, 4) + (1, -1)] / 2 = (1.5, 1.5); dC/dW = [[1.5, 1.5], [4.5, 4.5]], of which 4.5 is masked.
    """
    model, masks, [(x, _)] = two_layers()
    with torch.no_grad():
        model[0].weight[1, 0] = 0.0
    masks["0.weight"] = torch.tensor([[True, True], [False, True]])
    batches = [(x, torch.tensor([[-7.0], [-3.0]], dtype=torch.float64))]
    for sparse in (model, compact(copy.deepcopy(model), {"0.weight": masks["0.weight"]}).model):
        flow = gradient_flow(sparse, half_square, batches, masks)
        assert flow.gf_1 == pytest.approx(12 + 3)
        assert flow.gf_2 == pytest.approx(sqrt(45 + 4.5))
        assert flow.egf_1 == pytest.approx((7.5 + 3) / 2)
        assert flow.egf_2 == pytest.approx((sqrt(24.75) + sqrt(4.5)) / 2)
        assert flow.squared == pytest.approx(24.75 + 4.5)
        weighted = gradient_flow(sparse, half_square, batches, masks, per_weight=True)
        assert weighted.egf_1 == pytest.approx((7.5 / 3 + 3 / 2) / 2)
        assert weighted.egf_2 == pytest.approx((sqrt(24.75) / 3 + sqrt(4.5) / 2) / 2)
        # One example per batch: the mean of the norms, 2 |V^T x^T| and |V^T x^T|: 2 * 12 and 8, over h 2 * 3 and 2.
        singles = [(x[:1], batches[0][1][:1]), (x[1:], batches[0][1][1:])]
        assert gradient_flow(sparse, half_square, singles, masks).gf_1 == pytest.approx(15)
        norms = gradient_flow(sparse, half_square, singles, masks, average="norms")
        assert norms.gf_1 == pytest.approx((2 * 12 + 8) / 2 + (2 * 3 + 2) / 2)


# Against autograd ---------------------------------------------------------------------------------------------------


def data(n: int = 24, inputs: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


NETWORKS = {
    "plain": {},
    "batch norm": {"norm": "batch"},
    "batch norm without affine": {"norm": "batch", "norm_affine": False},
    "skips": {"skip": True},
    "prelu": {"activation": "prelu"},
    "everything": {"norm": "batch", "skip": True, "activation": "prelu"},
}
every_network = pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)


def network(density: float = 0.4, depth: int = 3, **options) -> tuple[MLP, dict[str, Tensor]]:
    """A network in float64 with random masks, exact zeros where they are False, and used running statistics."""
    model = MLP((6,), 4, depth=depth, width=9, **options).double()
    generator = torch.Generator().manual_seed(7)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, {name: max(1, round(density * s.numel())) for name, s in shapes.items()}, seed=2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            draw = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(draw * 0.7 * masks[name] if name in masks else p + 0.1 * draw)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if "var" in name else 0.0))
    return model, masks


def oracle(
    model: MLP, masks: dict[str, Tensor], batches: Batches, *, train_norm: bool = True, others: bool = False
) -> dict[str, Tensor]:
    """name -> gradient of the mean loss, by `functional_call` on dense weights times masks."""
    model = copy.deepcopy(model)
    names = [name for name, p in model.named_parameters() if p.dim() >= 2 or others]
    leaves = {name: model.get_parameter(name).detach().clone().requires_grad_() for name in names}
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.train(train_norm)
    # The effective weight is w * m; its gradient is taken with respect to the product, hence at masked weights too.
    total = sum(
        F.cross_entropy(torch.func.functional_call(model, leaves, (x,)), y, reduction="sum") for x, y in batches
    )
    mean = total / sum(len(y) for _, y in batches)
    return dict(zip(names, torch.autograd.grad(mean, list(leaves.values())), strict=True))


def measures(gradients: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, float]:
    """001 eq. 3.5-3.7 and 004 sec. 3, from flat vectors."""
    everything = torch.cat([g.flatten() for g in gradients.values()])
    kept = {name: (g * masks[name] if name in masks else g).flatten() for name, g in gradients.items()}
    return {
        "gf_1": float(everything.abs().sum()),
        "gf_2": float(everything.square().sum().sqrt()),
        "egf_1": float(sum(g.abs().sum() for g in kept.values())) / len(kept),
        "egf_2": float(sum(g.square().sum().sqrt() for g in kept.values())) / len(kept),
        "squared": float(sum(g.square().sum() for g in kept.values())),
    }


def found(flow) -> dict[str, float]:
    return {name: getattr(flow, name) for name in MEASURES}


def close(expected: dict[str, float], rel: float = 1e-10):
    return pytest.approx(expected, rel=rel)


@every_network
@pytest.mark.parametrize("density", [0.2, 0.4, 1.0])
def test_measures_are_those_of_the_dense_gradient(options, density):
    model, masks = network(density, **options)
    batches = [data()]
    expected = measures(oracle(model, masks, batches), masks)
    assert found(gradient_flow(model, F.cross_entropy, batches, masks)) == close(expected)
    if density < 1:
        assert expected["egf_1"] < expected["gf_1"] / len(masks)


@every_network
def test_masked_and_compact_measure_the_same(options):
    model, masks = network(**options)
    small = compact(copy.deepcopy(model), masks)
    assert small.compacted == tuple(masks)
    batches = [data()]
    first = gradient_flow(model, F.cross_entropy, batches, masks)
    second = gradient_flow(small.model, F.cross_entropy, batches, masks)
    alone = gradient_flow(small.model, F.cross_entropy, batches)
    mixed = compact(copy.deepcopy(model), masks, only=list(masks)[1:3]).model
    third = gradient_flow(mixed, F.cross_entropy, batches, masks)
    assert list(first.layers) == list(second.layers) == list(third.layers) == list(masks)
    for other in (second, alone, third):
        assert found(other) == close(found(first))
        for name, layer in first.layers.items():
            assert vars(other.layers[name]) == close(vars(layer))


@every_network
def test_under_masks_of_ones_the_measures_are_one_another(options):
    """gf_2^2 = sum of the layers' squares = 004's gradient flow, and EGF_1 = gf_1 / L (001 Table 3.1, dense)."""
    model, masks = network(1.0, **options)
    for given in (masks, None, {}):
        flow = gradient_flow(model, F.cross_entropy, [data()], given)
        assert flow.gf_2**2 == pytest.approx(sum(layer.l2**2 for layer in flow.layers.values()))
        assert flow.gf_2**2 == pytest.approx(flow.squared)
        assert flow.egf_1 == pytest.approx(flow.gf_1 / len(masks))
        assert len(flow.layers) == len(masks) == 4


def test_the_probe_is_one_whole_however_it_is_batched():
    """Without batch statistics the mean gradient does not depend on the batching, unequal batches included."""
    model, masks = network()
    x, y = data()
    whole = found(gradient_flow(model, F.cross_entropy, [(x, y)], masks))
    parts = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])]
    assert found(gradient_flow(model, F.cross_entropy, parts, masks)) == close(whole)
    assert found(gradient_flow(model, F.cross_entropy, iter(parts), masks)) == close(whole)


# Nothing left behind -------------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("batch_norm", ["train", "eval"])
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("average", ["gradient", "norms"])
def test_nothing_is_left_behind(options, batch_norm, compacted, average):
    model, masks = network(dropout=0.3, **options)
    if compacted:
        compact(model, masks)
    model.train()
    model.linears[1].eval()
    for k, p in enumerate(model.parameters()):
        p.grad = None if k == 0 else torch.full_like(p, 0.5)
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [dict(module.__dict__["_forward_hooks"]) for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    rng = torch.get_rng_state()
    fired = []
    handles = [p.register_post_accumulate_grad_hook(fired.append) for p in model.parameters()]
    gradient_flow(model, F.cross_entropy, [data(), data()], masks, batch_norm=batch_norm, others=True, average=average)
    assert not fired
    for handle in handles:
        handle.remove()
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert [dict(module.__dict__["_forward_hooks"]) for module in model.modules()] == hooks
    assert [p.requires_grad for p in model.parameters()] == flags
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], value) for key, value in state.items())
    for p, g in zip(model.parameters(), grads, strict=True):
        assert (p.grad is None) == (g is None)
        assert g is None or torch.equal(p.grad, g)


def test_nothing_is_left_behind_when_the_loss_fails():
    model, masks = network(norm="batch")
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def broken(out: Tensor, y: Tensor) -> Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        gradient_flow(model, broken, [data()], masks)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_gradients_are_taken_inside_no_grad_too():
    model, masks = network()
    expected = found(gradient_flow(model, F.cross_entropy, [data()], masks))
    with torch.no_grad():
        assert found(gradient_flow(model, F.cross_entropy, [data()], masks)) == expected
        assert not torch.is_grad_enabled()


def test_the_mode_of_the_model_does_not_matter():
    model, masks = network(norm="batch", dropout=0.5)
    first = found(gradient_flow(model.train(), F.cross_entropy, [data()], masks))
    assert found(gradient_flow(model.eval(), F.cross_entropy, [data()], masks)) == first


# Options -------------------------------------------------------------------------------------------------------------


def halves() -> Batches:
    x, y = data()
    return [(x[:10], y[:10]), (x[10:], y[10:])]


def test_average_of_norms():
    """Each batch's measures, and their mean: larger, for the norm of a mean is at most the mean of norms."""
    model, masks = network(norm="batch")
    flow = gradient_flow(model, F.cross_entropy, halves(), masks, average="norms")
    single = [oracle(model, masks, [batch]) for batch in halves()]
    for name, layer in flow.layers.items():
        kept = [g[name][masks[name]] for g in single]
        assert layer.l1 == pytest.approx(sum(float(g[name].abs().sum()) for g in single) / 2, rel=1e-10)
        assert layer.l2 == pytest.approx(sum(float(g[name].norm()) for g in single) / 2, rel=1e-10)
        assert layer.active_l1 == pytest.approx(sum(float(g.abs().sum()) for g in kept) / 2, rel=1e-10)
        assert layer.active_l2 == pytest.approx(sum(float(g.norm()) for g in kept) / 2, rel=1e-10)
    each = [measures(g, masks) for g in single]
    for name in ("gf_1", "egf_1", "egf_2"):
        assert getattr(flow, name) == pytest.approx((each[0][name] + each[1][name]) / 2, rel=1e-10)
    mean = gradient_flow(model, F.cross_entropy, halves(), masks)
    assert flow.gf_1 > mean.gf_1
    again = gradient_flow(model, F.cross_entropy, iter(halves()), masks, average="norms")
    assert found(again) == found(flow)


def test_average_of_norms_of_the_concatenated_gradient():
    """The mean of the batches' norms: gf_p of each batch (001 eq. 3.5, all layers concatenated), then the mean."""
    model, masks = network()
    flow = gradient_flow(model, F.cross_entropy, halves(), masks, average="norms")
    each = [measures(oracle(model, masks, [batch]), masks) for batch in halves()]
    for name in MEASURES:
        assert getattr(flow, name) == pytest.approx((each[0][name] + each[1][name]) / 2, rel=1e-10), name


def test_batch_norm_with_running_statistics():
    model, masks = network(norm="batch")
    flow = found(gradient_flow(model, F.cross_entropy, halves(), masks, batch_norm="eval"))
    assert flow == close(measures(oracle(model, masks, halves(), train_norm=False), masks))
    train = found(gradient_flow(model, F.cross_entropy, halves(), masks))
    assert train == close(measures(oracle(model, masks, halves()), masks))
    assert all(abs(flow[name] / train[name] - 1) > 1e-3 for name in MEASURES)


@pytest.mark.parametrize("compacted", [False, True])
def test_others_count_as_layers(compacted):
    model, masks = network(norm="batch", activation="prelu")
    expected = oracle(model, masks, [data()], others=True)
    measured = compact(copy.deepcopy(model), masks).model if compacted else model
    flow = gradient_flow(measured, F.cross_entropy, [data()], masks, others=True)
    assert len(flow.layers) == 4 + 3 * 2 + 3
    assert flow.layers.keys() == expected.keys()
    assert found(flow) == close(measures(expected, masks))
    assert flow.layers["norms.0.weight"].active == 9
    plain = gradient_flow(measured, F.cross_entropy, [data()], masks)
    assert plain.gf_1 < flow.gf_1
    assert plain.egf_1 != pytest.approx(flow.egf_1)


def test_biases_are_others_and_off_by_default():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    assert list(gradient_flow(model, F.cross_entropy, [data()]).layers) == ["0.weight", "2.weight"]
    assert len(gradient_flow(model, F.cross_entropy, [data()], others=True).layers) == 4


def test_per_weight_divides_each_layers_norm_by_its_active_weights():
    model, masks = network()
    gradients = oracle(model, masks, [data()])
    flow = gradient_flow(model, F.cross_entropy, [data()], masks, per_weight=True)
    kept = {name: g[masks[name]] for name, g in gradients.items()}
    assert flow.egf_1 == pytest.approx(sum(float(g.abs().mean()) for g in kept.values()) / 4, rel=1e-10)
    assert flow.egf_2 == pytest.approx(sum(float(g.norm()) / g.numel() for g in kept.values()) / 4, rel=1e-10)
    plain = gradient_flow(model, F.cross_entropy, [data()], masks)
    assert (flow.gf_1, flow.gf_2, flow.squared) == (plain.gf_1, plain.gf_2, plain.squared)


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"skip": True}])
def test_dropout_is_off(options):
    with_dropout, masks = network(dropout=0.6, **options)
    without, _ = network(dropout=0.0, **options)
    without.load_state_dict(with_dropout.state_dict())
    expected = found(gradient_flow(without.train(), F.cross_entropy, [data()], masks))
    assert found(gradient_flow(with_dropout.train(), F.cross_entropy, [data()], masks)) == expected


def test_the_probe_records_what_the_function_returns():
    model, masks = network(norm="batch")
    for options in ({}, {"average": "norms", "batch_norm": "eval", "others": True, "per_weight": True}):
        flow = gradient_flow(model, F.cross_entropy, halves(), masks, **options)
        values = GradientFlowProbe(F.cross_entropy, tuple(halves()), **options)(model, masks)
        assert {m.name: v for m, v in values.items() if not m.layer} == found(flow)
        for name, layer in flow.layers.items():
            assert values[Metric("egf_1", name)] == layer.active_l1
            assert values[Metric("gf_2", name)] == layer.l2


def test_wrong_options_are_named():
    model, masks = network()
    with pytest.raises(BadValue, match="average"):
        gradient_flow(model, F.cross_entropy, [data()], masks, average="mean")
    with pytest.raises(BadValue, match="batch_norm"):
        gradient_flow(model, F.cross_entropy, [data()], masks, batch_norm="test")
    with pytest.raises(Exception, match="scalar"):
        gradient_flow(model, lambda out, y: out.sum(1), [data()], masks)


@pytest.mark.parametrize("average", ["gradient", "norms"])
def test_an_empty_probe_is_an_error(average):
    model, masks = network()
    with pytest.raises(Exception, match="batches"):
        gradient_flow(model, F.cross_entropy, [], masks, average=average)


def test_a_mask_that_fits_nothing_is_an_error():
    """Else a misspelt name would pass for a dense layer."""
    model, masks = network()
    wrong: list[Callable[[], dict[str, Tensor]]] = [
        lambda: {**masks, "linears.7.weight": masks["output.weight"]},
        lambda: {**masks, "output.weight": masks["output.weight"].t()},
        lambda: {**masks, "output.weight": masks["output.weight"].double()},
    ]
    for make in wrong:
        with pytest.raises(BadValue, match="mask"):
            gradient_flow(model, F.cross_entropy, [data()], make())


def test_long_sums_keep_their_digits():
    """Norms over many small float32 entries are summed in float64."""
    model = nn.Sequential(nn.Linear(1500, 1500, bias=False))
    with torch.no_grad():
        model[0].weight.zero_()
    x = torch.full((1, 1500), 0.1)
    flow = gradient_flow(model, lambda out, y: (out * y).sum(), [(x, torch.full((1, 1500), 0.3))])
    g = float(torch.tensor(0.1) * torch.tensor(0.3))
    assert flow.gf_1 == pytest.approx(1500**2 * g, rel=1e-9)
    assert flow.gf_2 == pytest.approx(1500 * g, rel=1e-9)
