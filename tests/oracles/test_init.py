"""Initial values against the distributions the papers state, by tests at fixed seeds with Bonferroni's bound."""

from __future__ import annotations

from itertools import combinations, product
from math import prod, sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sparseflow.core import set_active, weight_shapes, weight_values
from sparseflow.init import Scheme, distributions, draw_active_, from_twin_, schemes
from sparseflow.masks import random_masks
from sparseflow.models import MLP
from sparseflow.sparse import compact
from sparseflow.study.build import Network, build
from sparseflow.study.read import validate
from sparseflow.study.spec import RunSpec

DIGITS = ((1, 8, 8), 10)
FASHION = ((1, 28, 28), 10)
DENSE_WIDTHS = (7, 20, 34, 48, 61)
FANS = ("in", "out", "average")
SCHEMES = list(product(schemes, distributions, (None, *FANS)))
every_scheme = pytest.mark.parametrize(
    ("scheme", "distribution", "fan"), SCHEMES, ids=["-".join(map(str, s)) for s in SCHEMES]
)

REJECT = 1e-4


def variance(scheme: str, fan: str | None, shape: tuple[int, ...]) -> float:
    """Var(w) = c / u (004 sec. 3.1; He et al. 2015 eq. 10; Glorot & Bengio 2010 eq. 16 for the average)."""
    out, into, *kernel = shape
    fan_in, fan_out = into * prod(kernel), out * prod(kernel)
    if scheme == "he":
        return 2 / {None: fan_in, "in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[fan]
    return 1 / {None: (fan_in + fan_out) / 2, "in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[fan]


def follows(values: Tensor, distribution: str, var: float) -> float:
    """p-value of Kolmogorov and Smirnov's test of the values against the named distribution of mean 0."""
    law = stats.norm(0, sqrt(var)) if distribution == "normal" else stats.uniform(-sqrt(3 * var), 2 * sqrt(3 * var))
    return float(stats.kstest(values.double().numpy(), law.cdf).pvalue)


def active(network: Network) -> dict[str, Tensor]:
    """Weight name -> its active values."""
    state = network.model.state_dict()
    return {
        name: state[name][network.masks[name]] if name in network.masks else state[name].flatten()
        for name in weight_shapes(network.model)
    }


def run(**content) -> RunSpec:
    return validate(RunSpec, content)


# Variances -----------------------------------------------------------------------------------------------------------


@every_scheme
def test_dense_layers_have_the_stated_distribution(scheme, distribution, fan):
    """Shape of the distribution by KS, variance by chi-square: 24 schemes x 3 layers x 2 tests, none below 1e-4."""
    model = nn.Sequential(nn.Linear(90, 40), nn.Conv2d(6, 20, (3, 2)), nn.Linear(12, 300, bias=False)).double()
    draw_active_(model, {}, Scheme(scheme, distribution, fan), seed=4)
    for name, weight in weight_values(model).items():
        var = variance(scheme, fan, tuple(weight.shape))
        values = weight.detach().flatten()
        assert follows(values, distribution, var) > REJECT, name
        assert abs(float(values.mean())) < 4.5 * sqrt(var / len(values)), name
        # n s^2 / var has mean n and variance n (kurtosis - 1): 2 n for the normal law, 0.8 n for the uniform one.
        spread = sqrt((2.0 if distribution == "normal" else 0.8) / len(values))
        assert float(values.square().mean()) / var == pytest.approx(1, abs=4.5 * spread), name


@every_scheme
def test_active_weights_have_the_twins_distribution(scheme, distribution, fan):
    wide, twin = MLP((64,), 10, depth=3, width=68), MLP((64,), 10, depth=3, width=40)
    shapes, small = weight_shapes(wide), weight_shapes(twin)
    masks = random_masks(shapes, {name: shape.numel() for name, shape in small.items()}, seed=1)
    from_twin_(wide, masks, small, Scheme(scheme, distribution, fan), seed=6)
    for name, mask in masks.items():
        weight = wide.get_parameter(name).detach()
        assert not weight[~mask].any()
        assert weight[mask].all()
        assert follows(weight[mask], distribution, variance(scheme, fan, tuple(small[name]))) > REJECT, name


def test_the_test_itself_sees_a_wrong_distribution():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert follows(values, "normal", 1.0) > REJECT
    assert follows(values, "normal", 1.5) < REJECT
    assert follows(values, "uniform", 1.0) < REJECT
    # The variance is not the standard deviation.
    assert follows(values * 0.1, "normal", 0.1) < REJECT


def test_he_normal_with_fan_in_is_the_default():
    """001 sec. 3.3.2."""
    assert Scheme() == Scheme("he", "normal")
    assert Scheme().deviation(torch.Size((7, 50))) == pytest.approx(sqrt(2 / 50))
    model, same = nn.Sequential(nn.Linear(50, 7)), nn.Sequential(nn.Linear(50, 7))
    draw_active_(model, {}, seed=1)
    draw_active_(same, {}, Scheme("he", "normal", "in"), seed=1)
    assert torch.equal(model[0].weight, same[0].weight)
    spec = RunSpec().init
    assert spec.scheme_object() == Scheme("he", "normal", None)


# The matched initialisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["he", "glorot"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_both_members_of_a_pair_start_from_one_distribution(depth, scheme):
    """001 eq. 3.3: two-sample KS of active weights, layer by layer, at the digits' widths."""
    for width, seed in product(DENSE_WIDTHS, (0, 1)):
        init = {"scheme": scheme, "distribution": "uniform" if seed else "normal"}
        sparse = build(run(model={"depth": depth}, mask={"twin_width": width}, init=init, seed=seed), *DIGITS)
        dense = build(run(model={"depth": depth, "width": width}, init=init, seed=seed), *DIGITS)
        ours, theirs = active(sparse), active(dense)
        assert list(ours) == list(theirs)
        for name, values in ours.items():
            assert len(values) == len(theirs[name])
            assert stats.ks_2samp(values.numpy(), theirs[name].numpy()).pvalue > REJECT, (width, name)


@pytest.mark.parametrize("width", [79, 236])
def test_the_layers_own_fans_are_another_distribution(width):
    """With its own fan-in of 788 every layer behind the first starts too small; the first reads the same inputs."""
    dense = active(build(run(model={"depth": 2, "width": width}), *FASHION))
    for fans, differs in (("own", True), ("twin", False)):
        spec = run(model={"depth": 2}, mask={"twin_width": width}, init={"fans": fans})
        sparse = active(build(spec, *FASHION))
        p = {name: stats.ks_2samp(values.numpy(), dense[name].numpy()).pvalue for name, values in sparse.items()}
        assert p["linears.0.weight"] > REJECT
        assert (p["linears.1.weight"] < REJECT) == differs
        assert (p["output.weight"] < REJECT) == differs
        own = sqrt(2 / 788) if differs else sqrt(2 / width)
        assert float(sparse["linears.1.weight"].std()) == pytest.approx(own, rel=0.05)


def test_a_density_without_a_twin_takes_its_own_fans():
    network = build(run(model={"depth": 2}, mask={"density": 0.3}), *DIGITS)
    values = active(network)["linears.1.weight"]
    assert len(values) == round(0.3 * 68**2)
    assert follows(values, "normal", 2 / 68) > REJECT


# Draws ----------------------------------------------------------------------------------------------------------------


def masked_mlp(depth: int = 3, width: int = 12) -> tuple[nn.Module, dict[str, Tensor]]:
    model = MLP((5,), 4, depth=depth, width=width)
    shapes = weight_shapes(model)
    return model, random_masks(shapes, {name: shape.numel() // 3 for name, shape in shapes.items()}, seed=0)


@pytest.mark.parametrize("execution", ["compact", "mixed"])
@pytest.mark.parametrize("distribution", distributions)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_and_compact_start_from_identical_values(execution, distribution, dtype):
    model, masks = masked_mlp()
    model.to(dtype)
    small, _ = masked_mlp()
    small.to(dtype)
    compact(small, masks, only=None if execution == "compact" else list(masks)[::2])
    for net in (model, small):
        draw_active_(net, masks, Scheme("he", distribution), seed=9)
    state = small.state_dict()
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert torch.equal(state[name], weight)
        assert not weight[~mask].any()
        assert not torch.signbit(weight[~mask]).any()
        assert weight[mask].all()


@pytest.mark.parametrize("twin_width", DENSE_WIDTHS)
def test_masked_and_compact_runs_start_from_identical_values(twin_width):
    built = [
        build(run(mask={"twin_width": twin_width, "execution": how}), *DIGITS) for how in ("masked", "compact", "auto")
    ]
    states = [network.model.state_dict() for network in built]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())


def test_a_layers_draw_depends_on_nothing_but_its_own():
    """Seed, name, shape and number of active weights: not on other layers, earlier draws or the global generator."""
    model, masks = masked_mlp()
    draw_active_(model, masks, seed=2)
    name = "linears.1.weight"
    expected = model.get_parameter(name).detach().clone()

    deeper, more = masked_mlp(depth=5)
    rng = torch.get_rng_state()
    draw_active_(deeper, {**more, name: masks[name]}, seed=2)
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(deeper.get_parameter(name), expected)

    others, _ = masked_mlp()
    torch.rand(3)
    draw_active_(others, {name: masks[name]}, seed=2)
    assert torch.equal(others.get_parameter(name), expected)

    other_seed, _ = masked_mlp()
    draw_active_(other_seed, masks, seed=3)
    assert not torch.equal(other_seed.get_parameter(name), expected)


def test_layers_and_seeds_share_no_numbers():
    drawn = {}
    for seed in (0, 1):
        model, _ = masked_mlp(depth=4)
        draw_active_(model, {}, seed=seed)
        for name, weight in weight_values(model).items():
            drawn[seed, name] = set(weight.detach().flatten().tolist())
    for a, b in combinations(drawn, 2):
        assert len(drawn[a] & drawn[b]) <= 1, (a, b)


def test_members_of_a_pair_share_no_numbers():
    """The same seed and name, but independent draws: a pair differs by more than its connectivity's chance."""
    sparse = active(build(run(mask={"twin_width": 34}), *DIGITS))
    dense = active(build(run(model={"width": 34}), *DIGITS))
    for name, values in sparse.items():
        # Among the 24 bits of a float32, two of a thousand numbers may coincide by chance.
        assert np.intersect1d(values.numpy(), dense[name].numpy()).size <= 3, name


def test_set_active_is_row_major_and_zeroes_the_rest():
    layer = nn.Sequential(nn.Linear(3, 2, bias=False))
    mask = torch.tensor([[False, True, True], [True, False, False]])
    set_active(layer, "0.weight", torch.tensor([1.0, 2.0, 3.0]), mask)
    assert layer[0].weight.tolist() == [[0, 1, 2], [3, 0, 0]]
    compact(layer, {"0.weight": mask})
    set_active(layer, "0.weight", torch.tensor([4.0, 5.0, 6.0]), mask)
    assert layer[0].dense_weight().tolist() == [[0, 4, 5], [6, 0, 0]]


def test_other_parameters_are_left_alone():
    model = MLP((5,), 4, depth=2, width=6, norm="batch", activation="srelu")
    before = {name: p.clone() for name, p in model.named_parameters() if p.dim() < 2}
    draw_active_(model, {}, seed=1)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())
    network = build(run(model={"norm": "batch", "activation": "srelu", "depth": 2}), *DIGITS)
    state = network.model.state_dict()
    for k in range(2):
        assert state[f"norms.{k}.weight"].eq(1).all()
        assert state[f"norms.{k}.running_var"].eq(1).all()
        assert not state[f"norms.{k}.bias"].any()
        assert not state[f"norms.{k}.running_mean"].any()
        assert [state[f"activations.{k}.{name}"].item() for name in ("t_l", "t_r", "a_r")] == [0, 1, 1]
