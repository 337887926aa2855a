"""Paths between networks against closed forms and evaluations of their own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from curved import NETS, curved
from sparseflow.core import BadValue
from sparseflow.measure import Path, interpolate
from sparseflow.measure.outcome import outcome
from sparseflow.sparse import compact


def pair(net: str):
    one, other = curved(net, 1), curved(net, 2)
    return one, one.model.state_dict(), other.model.state_dict()


def half_square(out, y):
    return ((out - y) ** 2).sum(1).mean() / 2


def test_a_quadratic_loss_is_a_parabola_on_the_path():
    """Of a linear model: with residuals r_a = (1 - a) r_0 + a r_1, the loss is mean |r_a|^2 / 2."""
    models = [nn.Linear(4, 2).double() for _ in range(2)]
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, n, generator=draw, dtype=torch.float64) for n in (4, 2))
    for model in models:
        for p in model.parameters():
            nn.init.normal_(p, generator=draw)
    r0, r1 = ((model(x) - y).detach() for model in models)
    alphas = [-0.5, 0, 0.3, 1, 2]
    found = interpolate(
        models[0], *(m.state_dict() for m in models), half_square, [(x[:5], y[:5]), (x[5:], y[5:])], alphas
    )
    expected = [float((((1 - a) * r0 + a * r1) ** 2).sum(1).mean() / 2) for a in alphas]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)
    assert found.accuracies is None
    assert found.barrier == 0  # convex


@pytest.mark.parametrize("net", NETS)
def test_the_ends_are_the_stored_networks(net):
    of, first, second = pair(net)
    found = interpolate(of.model, first, second, F.cross_entropy, of.batches)
    assert found.alphas == tuple(k / 10 for k in range(11))
    for end, state in ((0, first), (-1, second)):
        model = copy.deepcopy(of.model)
        model.load_state_dict(state)
        stored = outcome(model.eval(), F.cross_entropy, of.batches)
        assert (found.losses[end], found.accuracies[end]) == (stored.loss, stored.accuracy)
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in of.batches)
        assert stored.accuracy == right / 11
    same = interpolate(of.model, first, first, F.cross_entropy, of.batches, [0, 0.3, 1])
    np.testing.assert_allclose(same.losses, same.losses[0], rtol=1e-12)
    back = interpolate(of.model, second, first, F.cross_entropy, of.batches)
    np.testing.assert_allclose(back.losses, found.losses[::-1], rtol=1e-9)


def test_statistics_are_interpolated_or_taken_anew():
    of, first, second = pair("norm")
    statistics = [(torch.randn(16, 1, 4, 4, dtype=torch.float64), torch.zeros(16)) for _ in range(3)]
    plain = interpolate(of.model, first, second, F.cross_entropy, of.batches, [0.25])
    taken = interpolate(of.model, first, second, F.cross_entropy, of.batches, [0.0, 0.25], statistics=statistics)
    middle = copy.deepcopy(of.model)
    middle.load_state_dict({n: 0.75 * first[n] + 0.25 * second[n] if "num" not in n else first[n] for n in first})
    assert plain.losses[0] == pytest.approx(outcome(middle.eval(), F.cross_entropy, of.batches).loss, rel=1e-12)
    for model, at in ((middle, 1), (copy.deepcopy(of.model), 0)):
        if at == 0:
            model.load_state_dict(first)
        # The statistics by hand: means of the first layer's batch means and unbiased variances, then the second's.
        firsts = [model.first(x) for x, _ in statistics]
        _set(model.first_norm, firsts)
        model.eval()
        with torch.no_grad():
            by_batch = []
            for h in firsts:
                m, v = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), unbiased=False, keepdim=True)
                norm = model.first_norm
                h = (h - m) / (v + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
                by_batch.append(model.second(F.silu(h)))
            _set(model.second_norm, by_batch)
        assert taken.losses[at] == pytest.approx(outcome(model, F.cross_entropy, of.batches).loss, rel=1e-9)
    assert abs(taken.losses[1] - plain.losses[0]) > 1e-3


def _set(norm, outputs) -> None:
    norm.running_mean = torch.stack([h.mean((0, 2, 3)) for h in outputs]).mean(0).detach()
    norm.running_var = torch.stack([h.var((0, 2, 3)) for h in outputs]).mean(0).detach()


def test_networks_of_different_masks_and_executions_may_be_the_ends():
    of, first, second = pair("masked")
    assert any(((first[n] != 0) != (second[n] != 0)).any() for n in of.masks)
    made = compact(copy.deepcopy(of.model), of.masks)
    assert made.compacted
    expected = interpolate(of.model, first, second, F.cross_entropy, of.batches)
    found = interpolate(made.model, made.model.state_dict(), second, F.cross_entropy, of.batches)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-12)


def test_the_barrier_is_what_lies_above_the_line_between_the_ends():
    assert Path((0.0, 0.25, 0.5, 1.0), (1.0, 2.0, 3.5, 2.0), None).barrier == 2.0
    assert Path((0.0, 0.5, 1.0, 2.0), (1.0, 1.2, 2.0, 9.0), None).barrier == 0.0
    with pytest.raises(BadValue, match="needs alpha = 0 and alpha = 1"):
        _ = Path((0.0, 0.5), (1.0, 2.0), None).barrier


def test_states_of_another_architecture_are_refused():
    of, first, second = pair("mlp")
    less = {name: w for name, w in second.items() if name != "2.bias"}
    with pytest.raises(BadValue, match=r"the second state has no '2\.bias', which the model has"):
        interpolate(of.model, first, less, F.cross_entropy, of.batches)
    with pytest.raises(BadValue, match="the first state has 'more', which the model has not"):
        interpolate(of.model, {**first, "more": torch.zeros(1)}, second, F.cross_entropy, of.batches)
    with pytest.raises(BadValue, match=r"2\.bias has shape \(1,\) in the second state, \(5,\) in the model"):
        interpolate(of.model, first, {**second, "2.bias": torch.zeros(1)}, F.cross_entropy, of.batches)
    with pytest.raises(BadValue, match="no batches"):
        interpolate(of.model, first, second, F.cross_entropy, [])
