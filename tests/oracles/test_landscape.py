"""Losses along directions against closed forms and an independent forward pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from curved import curved
from sparseflow.core import BadValue
from sparseflow.measure import Hessian, landscape
from sparseflow.measure.curvature import extremes
from sparseflow.sparse import compact


class Bowl(nn.Module):
    """Its output is 1/2 theta' A theta for a flat weight theta of 2 x 3."""

    def __init__(self) -> None:
        super().__init__()
        a = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.a = a + a.T
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3))

    def forward(self, x):
        return self.weight.flatten() @ self.a @ self.weight.flatten() / 2


def output(out, y):
    return out


ANY = [(torch.zeros(1, 1), torch.zeros(1))]


def test_a_quadratic_along_its_top_eigenvector_is_a_parabola_of_that_curvature():
    model = Bowl()
    hessian = Hessian(model, output, ANY)
    top = extremes(hessian).top
    direction = hessian.coordinates.dense(top.vectors[:, 0])
    found = landscape.line(model, output, ANY, direction, [-2, -0.5, 0, 1])
    slope = float(hessian.gradient @ top.vectors[:, 0])
    expected = [hessian.value + slope * t + float(top.values[0]) / 2 * t**2 for t in found.distances]
    np.testing.assert_allclose(found.losses, expected, atol=1e-10)


def test_a_plane_is_every_combination():
    of = curved("masked")
    first, second = (landscape.random_direction(of.model, of.masks, number=k) for k in (0, 1))
    xs, ys = [-1.0, 0.0, 0.5], [0.0, 2.0]
    found = landscape.plane(of.model, of.case.loss, of.batches, first, second, xs, ys, of.masks)
    assert (found.xs, found.ys) == (tuple(xs), tuple(ys))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            moved = copy.deepcopy(of.model).eval()
            with torch.no_grad():
                for name in of.masks:
                    moved.get_parameter(name).add_(x * first[name] + y * second[name])
            expected = sum(len(t) * of.case.loss(moved(u), t).item() for u, t in of.batches) / 11
            assert found.losses[i][j] == pytest.approx(expected, rel=1e-12)
    line = landscape.line(of.model, of.case.loss, of.batches, first, xs, of.masks)
    assert line.losses == tuple(row[0] for row in found.losses)


@pytest.mark.parametrize("net", ["masked", "norm"])
def test_a_random_direction_has_the_norm_of_every_filter_and_moves_active_weights_alone(net):
    of = curved(net, density=0.4)
    found = landscape.random_direction(of.model, of.masks, seed=3)
    assert list(found) == list(of.masks)
    for name, direction in found.items():
        weight = of.model.get_parameter(name).detach()
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
        assert torch.equal(
            direction != 0, of.masks[name] & (weight.flatten(1).norm(dim=1) > 0).view(-1, *[1] * (weight.dim() - 1))
        )
    again, other, second = (
        landscape.random_direction(of.model, of.masks, seed=s, number=n) for s, n in ((3, 0), (4, 0), (3, 1))
    )
    assert all(torch.equal(again[name], found[name]) for name in found)
    assert not any(torch.allclose(d[name], found[name]) for name in found for d in (other, second))


def test_the_scale_of_a_filter_followed_by_batch_norm_does_not_matter():
    """Why directions are normalised by filters."""
    of = curved("norm")
    scaled = copy.deepcopy(of.model)
    with torch.no_grad():
        scaled.first.weight.mul_(10.0)
        scaled.first_norm.running_mean.mul_(10.0)
        scaled.first_norm.running_var.mul_(100.0)
        scaled.first_norm.eps *= 100.0
    lines = [
        landscape.line(m, of.case.loss, of.batches, landscape.random_direction(m), [-1, 0, 1]).losses
        for m in (of.model, scaled)
    ]
    np.testing.assert_allclose(*lines, rtol=1e-9)


def test_compact_layers_have_the_same_directions_and_losses():
    of = curved("conv", density=0.5)
    made = compact(copy.deepcopy(of.model), of.masks)
    assert made.compacted
    rest = {name: of.masks[name] for name in made.left_masked}
    lines = [
        landscape.line(m, of.case.loss, of.batches, landscape.random_direction(m, masks), [-1, 1], masks).losses
        for m, masks in ((of.model, of.masks), (made.model, rest))
    ]
    np.testing.assert_allclose(*lines, rtol=1e-9)


def test_batch_norm_may_use_the_batchs_statistics():
    of = curved("norm")
    direction = landscape.random_direction(of.model)
    (found,) = landscape.line(of.model, of.case.loss, of.batches, direction, [0.5], batch_norm="train").losses
    moved = copy.deepcopy(of.model).train()
    with torch.no_grad():
        for name in direction:
            moved.get_parameter(name).add_(0.5 * direction[name])
        expected = sum(len(y) * of.case.loss(moved(x), y).item() for x, y in of.batches) / 11
    assert found == pytest.approx(expected, rel=1e-12)


def test_directions_that_do_not_fit_are_refused():
    of = curved("masked")
    model, loss, batches, masks = of.arguments
    zeros = {name: torch.zeros(mask.shape) for name, mask in masks.items()}
    with pytest.raises(BadValue, match="names 'other', which the model does not have"):
        landscape.line(model, loss, batches, {"other": torch.zeros(1)}, [0], masks)
    with pytest.raises(BadValue, match=r"0\.weight has shape \(7,\), the model's \(7, 6\)"):
        landscape.line(model, loss, batches, {"0.weight": torch.zeros(7)}, [0], masks)
    free = {**zeros, "2.weight": (~masks["2.weight"]).double()}
    with pytest.raises(BadValue, match=r"moves 21 masked weights of 2\.weight"):
        landscape.line(model, loss, batches, free, [0], masks)
    with pytest.raises(BadValue, match="no batches"):
        landscape.line(model, loss, [], zeros, [0], masks)
    with pytest.raises(BadValue, match="batch_norm must be"):
        landscape.line(model, loss, batches, zeros, [0], masks, batch_norm="no")
    with pytest.raises(BadValue, match=r"must return a scalar tensor, got shape \(7, 3\)"):
        landscape.line(model, lambda out, y: out, batches, zeros, [0], masks)
    assert np.isnan(landscape.line(model, lambda out, y: out.sum() * np.nan, batches, zeros, [0], masks).losses).all()


# Around an input -----------------------------------------------------------------------------------------------------


def squared_distance(out, y):
    return ((out - y) ** 2).sum(1).mean() / 2


def test_around_an_input_of_the_identity_the_loss_is_half_the_squared_distance():
    """|x + a u + b v - y|^2 / 2 with u = (x - y) / |x - y| and v orthogonal: ((|x - y| + a)^2 + b^2) / 2."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    xs, ys = [-1.0, 0.0, 2.0], [-0.5, 0.0, 3.0]
    found = landscape.around_input(nn.Identity(), squared_distance, (x, y), xs, ys)
    far = (x - y).norm(dim=1).numpy()
    expected = [[((far + a) ** 2 + b**2).mean() / 2 for b in ys] for a in xs]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)


def test_around_an_input_each_example_has_its_own_gradient():
    of = curved("norm")
    x, y = of.batches[0]
    for seed in (0, 1):
        whole = landscape.around_input(of.model, F.cross_entropy, (x, y), [0.0, 1e-4], [0.0, 1e-4], seed=seed)
        slopes = []
        model = copy.deepcopy(of.model).eval()
        for one, target in zip(x, y, strict=True):
            leaf = one.unsqueeze(0).clone().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(leaf), target.unsqueeze(0)), leaf)
            slopes.append(g.norm().item())
        losses = np.array(whole.losses)
        assert (losses[1, 0] - losses[0, 0]) / 1e-4 == pytest.approx(np.mean(slopes), rel=1e-3)
        assert abs(losses[0, 1] - losses[0, 0]) / 1e-4 < 1e-2 * np.mean(slopes)
    far = [landscape.around_input(of.model, F.cross_entropy, (x, y), [0], [2.0], seed=s).losses for s in (0, 0, 1)]
    assert far[0] == far[1] != far[2]


def test_inputs_without_a_direction_are_refused():
    model = nn.Flatten()
    with pytest.raises(BadValue, match=r"inputs of torch\.int64 have no gradient"):
        landscape.around_input(
            model, squared_distance, (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2)), [0], [0]
        )
    x = torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    with pytest.raises(BadValue, match="example 1 of the batch has a loss gradient of length 0"):
        landscape.around_input(model, squared_distance, (x, torch.full((2, 2), 2.0)), [0], [0])
