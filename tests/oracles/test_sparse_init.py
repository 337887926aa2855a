"""Sparsity-aware initialisation: weights over their formula's deviation follow the unit law, for very unequal fans."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod, sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sparseflow.core import SparseflowError
from sparseflow.init import Scheme, draw_, draw_active_, from_fans_, initialisations
from sparseflow.sparse import compact

SHAPES = {"linear": (60, 90), "conv": (24, 20, 3, 3)}
MODES = list(product(("he", "glorot"), ("normal", "uniform"), ("in", "out", "average"), SHAPES))
REJECT = 0.01 / (len(MODES) * 2)
SEEDS = 12


def unequal(shape, seed):
    """A random mask whose rows and columns have densities from 0.01 to 1, some neurons with one weight or none."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.logspace(-1.2, 0, shape[0])[torch.randperm(shape[0], generator=draw)]
    columns = torch.logspace(-0.8, 0, shape[1])[torch.randperm(shape[1], generator=draw)]
    density = (rows[:, None] * columns[None, :]).reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
    mask = torch.rand(shape, generator=draw) < density
    mask[0] = False
    mask[1] = False
    mask[1].view(-1)[3] = True
    return mask


def layer(shape, dtype=torch.float32):
    made = (
        nn.Linear(shape[1], shape[0], bias=False) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 3, bias=False)
    )
    return nn.Sequential(made).to(dtype)


def formula(mask, scheme, fan):
    """Var(w_ij) = c / u by loops over neurons (004 eq. 2)."""
    m = mask.numpy()
    fan_in = np.array([max(1, m[i].sum()) for i in range(m.shape[0])], dtype=float)
    fan_out = np.array([max(1, m[:, j].sum()) for j in range(m.shape[1])], dtype=float)
    u = {
        "in": fan_in[:, None] + 0 * fan_out[None, :],
        "out": 0 * fan_in[:, None] + fan_out[None, :],
        "average": (fan_in[:, None] + fan_out[None, :]) / 2,
    }[fan]
    variance = {"he": 2.0, "glorot": 1.0}[scheme] / u
    return np.broadcast_to(variance.reshape(*variance.shape, *[1] * (m.ndim - 2)), m.shape).copy()


def pooled(method, scheme, distribution, fan, shape, deviation_of):
    parts = []
    for seed in range(SEEDS):
        mask, model = unequal(shape, seed), layer(shape)
        draw_(model, {"0.weight": mask}, method, Scheme(scheme, distribution, fan), seed=seed)
        weight = model[0].weight.detach()
        assert not weight[~mask].any()
        parts.append((weight / torch.from_numpy(deviation_of(mask)).float())[mask])
    return torch.cat(parts).double().numpy()


def p_values(unit, distribution):
    """Of the pooled squares (chi-square, two-sided) and of the law (Kolmogorov-Smirnov)."""
    law = stats.norm() if distribution == "normal" else stats.uniform(-sqrt(3), 2 * sqrt(3))
    shape = stats.kstest(unit, law.cdf).pvalue
    if distribution == "uniform":
        return (shape,)
    below = stats.chi2(len(unit)).cdf((unit**2).sum())
    return 2 * min(below, 1 - below), shape


@pytest.mark.parametrize(("scheme", "distribution", "fan", "kind"), MODES)
def test_fan_counting_gives_every_weight_its_own_variance(scheme, distribution, fan, kind):
    shape = SHAPES[kind]
    unit = pooled("fans", scheme, distribution, fan, shape, lambda mask: np.sqrt(formula(mask, scheme, fan)))
    assert min(p_values(unit, distribution)) > REJECT


@pytest.mark.parametrize(("scheme", "distribution", "fan", "kind"), MODES)
def test_the_variance_taken_for_the_deviation_is_noticed(scheme, distribution, fan, kind):
    unit = pooled("fans", scheme, distribution, fan, SHAPES[kind], lambda mask: formula(mask, scheme, fan))
    assert min(p_values(unit, distribution)) < REJECT


@pytest.mark.parametrize(("scheme", "distribution", "fan", "kind"), MODES)
def test_liu_scales_the_dense_deviation_by_the_density(scheme, distribution, fan, kind):
    shape = SHAPES[kind]
    into, out_of = prod(shape[1:]), shape[0] * prod(shape[2:])
    u = {"in": into, "out": out_of, "average": (into + out_of) / 2}[fan]

    def deviation(mask):
        density = float(mask.double().mean())
        return np.full(shape, sqrt({"he": 2.0, "glorot": 1.0}[scheme] / u) / sqrt(density))

    assert min(p_values(pooled("liu", scheme, distribution, fan, shape, deviation), distribution)) > REJECT


@pytest.mark.parametrize("method", initialisations.names)
@pytest.mark.parametrize(("scheme", "distribution", "kind"), [(s, d, k) for s, d, f, k in MODES if f == "in"])
def test_a_dense_mask_gives_torchs_own_statistics(method, scheme, distribution, kind):
    shape = SHAPES[kind]
    mine, theirs = [], []
    fill = {
        ("he", "normal"): nn.init.kaiming_normal_,
        ("he", "uniform"): nn.init.kaiming_uniform_,
        ("glorot", "normal"): nn.init.xavier_normal_,
        ("glorot", "uniform"): nn.init.xavier_uniform_,
    }[scheme, distribution]
    for seed in range(4):
        model = layer(shape)
        draw_(model, {"0.weight": torch.ones(shape, dtype=torch.bool)}, method, Scheme(scheme, distribution), seed=seed)
        mine.append(model[0].weight.detach().flatten())
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            theirs.append(fill(torch.empty(shape), nonlinearity="relu") if scheme == "he" else fill(torch.empty(shape)))
    mine, theirs = torch.cat(mine).numpy(), torch.cat([t.flatten() for t in theirs]).numpy()
    assert stats.ks_2samp(mine, theirs).pvalue > REJECT
    assert abs(mine.std() / theirs.std() - 1) < 5 / sqrt(len(mine))


@pytest.mark.parametrize("method", initialisations.names)
@pytest.mark.parametrize("kind", SHAPES)
def test_masked_and_compact_start_from_the_same_weights(method, kind):
    shape = SHAPES[kind]
    mask, masked, small = unequal(shape, 3), layer(shape, torch.float64), layer(shape, torch.float64)
    compact(small, {"0.weight": mask})
    draw_(masked, {"0.weight": mask}, method, seed=7)
    draw_(small, {}, method, seed=7)
    assert torch.equal(masked[0].weight.detach(), small[0].dense_weight())
    assert masked[0].weight.detach()[mask].all()


def test_the_signal_keeps_its_size_where_the_dense_initialisation_loses_it():
    """004 eq. 11 to 13: with Var(w) = 1 / fan-in a linear chain keeps the variance of its activations."""
    widths, mask_of = [256] * 6, torch.Generator().manual_seed(0)
    model = nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in pairwise(widths)])
    x = torch.randn(200, 256, generator=torch.Generator().manual_seed(2))
    ratio = {}
    for method in initialisations.names:
        squares = []
        for seed in range(10):
            masks = {f"{k}.weight": torch.rand(256, 256, generator=mask_of) < 0.2 for k in range(5)}
            draw_(model, masks, method, Scheme("glorot", fan="in"), seed=seed)
            squares.append(float(model(x).detach().square().mean()))
        ratio[method] = sqrt(np.mean(squares))
    assert ratio["fans"] == pytest.approx(1.0, abs=0.05)
    assert ratio["liu"] == pytest.approx(1.0, abs=0.05)
    assert ratio["dense"] == pytest.approx(0.2 ** (5 / 2), rel=0.05)


def test_layers_without_a_mask_are_drawn_dense_and_from_fans_is_fan_counting():
    one, other, third = (nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)) for _ in range(3))
    masks = {"0.weight": unequal((20, 30), 1)}
    from_fans_(one, masks, seed=4)
    draw_(other, masks, "fans", seed=4)
    draw_active_(third, masks, seed=4)
    assert torch.equal(one[0].weight, other[0].weight)
    torch.testing.assert_close(one[2].weight, third[2].weight)
    assert not torch.equal(one[0].weight, third[0].weight)
    with pytest.raises(SparseflowError, match="unknown initialisation 'fan'"):
        draw_(one, masks, "fan")
