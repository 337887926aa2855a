"""Signal propagation against closed forms, an independent forward pass, and the paper's claim (004 Fig. 1c)."""

from __future__ import annotations

from itertools import pairwise
from math import comb, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from sparseflow.core import stream, stream_seed
from sparseflow.init import Scheme, draw_
from sparseflow.masks import prune
from sparseflow.measure import Draw, Key, Point, Propagation, points, signal_propagation
from sparseflow.models import models


def chain(*sizes: int, activation=nn.Identity) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, (into, out) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(into, out, bias=False), activation() if k < len(sizes) - 2 else nn.Identity()]
    return nn.Sequential(*layers).double()


def with_input(sizes: tuple[int, ...], density: float) -> float:
    """Product over layers of the probability that a unit has an active weight: k of n weights, drawn without return."""
    found = 1.0
    for into, out in pairwise(sizes):
        total, active = into * out, max(1, int(density * into * out + 0.5))
        found *= 1 - comb(total - into, active) / comb(total, active)
    return found


@pytest.mark.parametrize(("activation", "scheme", "start"), [(nn.Identity, "glorot", 1.0), (nn.ReLU, "he", 2.0)])
def test_the_variance_of_the_outputs_follows_its_closed_form(activation, scheme, start):
    """Mean squares: dense loses the density in every layer, Liu keeps them, fan-counting loses units without inputs.

    Var(z_i) = f_i Var(w_i) E[a^2] given the f_i active weights; Var(w_i) is c / n, c / (n density), c / f_i. Behind a
    ReLU E[a^2] is half of Var(z), which He's c = 2 makes up for; the sum of both is `start`.
    """
    sizes, density = (40, 30, 100), 0.05
    net = chain(*sizes, activation=activation)
    found = {
        (p.initialisation, p.density): p
        for p in signal_propagation(net, (40,), [density], draws=120, probes=200, scheme=Scheme(scheme, fan="in"))
    }
    real = [round(density * a * b) / (a * b) for a, b in pairwise(sizes)]
    wanted = {
        ("dense", 1.0): start,
        ("dense", density): start * real[0] * real[1],
        ("liu", density): start,
        ("fans", density): start * with_input(sizes, density),
    }
    assert found.keys() == wanted.keys()
    assert wanted["fans", density] < 0.8 * wanted["liu", density]
    for key, mean_square in wanted.items():
        # 200 x 40 inputs have a mean square of 1 within 3 %; the mean of 100 outputs takes 1/100 of the variance.
        assert found[key].rms == pytest.approx(sqrt(mean_square), abs=4 * found[key].error, rel=0.02), key


def test_the_standard_error_is_that_of_the_rms():
    """Over many sets of draws the rms deviates as its error says."""
    net = chain(20, 15, 5, activation=nn.ReLU)
    draws = signal_propagation(net, (20,), [1.0], ["dense"], draws=400, probes=8)[0].draws
    sets = [Point("dense", 1.0, draws[k : k + 10]) for k in range(0, 400, 10)]
    ratio = np.std([p.rms for p in sets], ddof=1) / np.mean([p.error for p in sets])
    assert 0.7 < ratio < 1.35  # the deviation of 40 values is known to 11 %


def test_the_numbers_of_a_point():
    point = Point("fans", 0.5, [Draw(3.0, 0.1, 0.2, 4), Draw(4.0, 0.2, 0.4, 2), Draw(5.0, 0.3, 0.6, 9)])
    assert point.rms == pytest.approx(sqrt(50 / 3))
    squares = np.array([9.0, 16.0, 25.0])
    assert point.error == pytest.approx(squares.std(ddof=1) / sqrt(3) / (2 * sqrt(50 / 3)))
    assert (point.quantile(0.0), point.quantile(0.5), point.quantile(0.75)) == (3.0, 4.0, 4.5)
    assert (point.unreached, point.dead) == pytest.approx((0.2, 0.4))
    assert point.fan_in == 2
    draws = {
        Key("fans", 0.5, 0): point.draws[0],
        Key("liu", 0.5, 0): point.draws[1],
        Key("fans", 0.5, 1): point.draws[2],
    }
    assert [(p.initialisation, p.density, tuple(p.draws)) for p in points(draws)] == [
        ("fans", 0.5, (point.draws[0], point.draws[2])),
        ("liu", 0.5, (point.draws[1],)),
    ]
    other = Point("dense", 1.0, [Draw(1.0, 0, 0, 1), Draw(2.0, 0, 0, 1)])
    part, error = point.relative_to(other)
    assert part == pytest.approx(point.rms / sqrt(2.5))
    assert error / part == pytest.approx(sqrt((point.error / point.rms) ** 2 + (other.error / other.rms) ** 2))
    assert other.relative_to(other) == (1.0, 0.0)
    assert np.isnan(point.relative_to(Point("dense", 1.0, [Draw(0.0, 0, 0, 1)] * 2))).all()


@pytest.mark.parametrize(("budget", "dense"), [("uniform", None), ("erk", None), ("global", None), ("erk", "4")])
@pytest.mark.parametrize("method", ["liu", "fans"])
def test_a_draw_is_a_random_mask_and_an_initialisation(budget, dense, method):
    net = chain(12, 9, 7, 4, activation=nn.ReLU)
    with torch.no_grad():
        net[2].register_parameter("bias", nn.Parameter(torch.arange(7.0).double()))
    found = Propagation(net, (12,), probes=33, seed=3, budget=budget, dense=dense).draw(Key(method, 0.4, 5))
    seed = stream_seed(3, "signal", 5)
    masks = prune(net, "random", 0.4, budget=budget, dense=dense, seed=seed)
    draw_(net, masks, method, seed=seed)
    x = torch.randn(33, 12, generator=stream(3, "signal", "inputs")).numpy().astype(np.float64)
    for name in ("0", "2", "4"):
        layer = net.get_submodule(name)
        x = x @ layer.weight.detach().numpy().T + (0 if layer.bias is None else layer.bias.detach().numpy())
        x = np.maximum(x, 0) if name != "4" else x
    assert found.deviation == pytest.approx(x.std(), rel=1e-12)
    assert found.fan_in == min(int(mask.sum(1).min()) for mask in masks.values())


def test_a_weight_that_modules_share_has_one_mask():
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False)).double()
    net[2].weight = net[0].weight
    found = Propagation(net, (8,), probes=9).draw(Key("dense", 0.3, 0))
    mask = prune(net, "random", 0.3, seed=stream_seed(0, "signal", 0))["0.weight"]
    draw_(net, {"0.weight": mask, "2.weight": mask}, "dense", seed=stream_seed(0, "signal", 0))
    assert int(net[0].weight.count_nonzero()) == 19
    x = torch.randn(9, 8, generator=stream(0, "signal", "inputs")).double()
    assert found.deviation == pytest.approx(float(net(x).detach().std(correction=0)), rel=1e-12)


@pytest.mark.slow  # half a minute: 500 networks of 750,000 weights
def test_outputs_stay_as_large_as_the_dense_networks_where_fan_ins_stay_above_20():
    """004 Fig. 1c and its claim in sec. 3.1, to 98 % sparsity."""
    net = nn.Sequential(
        nn.Conv2d(120, 120, 5, bias=False),
        nn.ReLU(),
        nn.Conv2d(120, 120, 5, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3000, 50, bias=False),
    )
    found = signal_propagation(net, (120, 13, 13), [0.1, 0.02], ["fans", "liu"], draws=100, probes=4)
    dense = found[0].rms
    for point in found[1:]:
        assert point.fan_in > 20
        assert point.rms / dense == pytest.approx(1, abs=0.1), point
        assert point.unreached == 0


@pytest.mark.slow  # half a minute: 1,000 networks
def test_outputs_of_lenet_5_stay_as_large_to_80_and_90_percent():
    net = models["lenet-5"]((1, 28, 28), 10)
    of: dict[tuple[str, float], Point] = {}
    for method, densities in (("fans", (0.5, 0.2, 0.02)), ("liu", (0.5, 0.2, 0.1)), ("dense", (0.2,))):
        found = signal_propagation(net, (1, 28, 28), densities, [method], draws=100, probes=48)
        of |= {(p.initialisation, p.density): p for p in found}
    dense = of["dense", 1.0].rms
    for key in (("fans", 0.5), ("fans", 0.2), ("liu", 0.5), ("liu", 0.2), ("liu", 0.1)):
        assert of[key].rms / dense == pytest.approx(1, abs=0.15), key
    assert of["dense", 0.2].rms / dense < 0.03  # 0.2 ** (5 / 2)
    assert of["fans", 0.02].dead > 3 * of["fans", 0.2].dead
    assert of["fans", 0.02].unreached > 0.1 > of["fans", 0.2].unreached
