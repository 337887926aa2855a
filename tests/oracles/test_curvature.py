"""The Hessian over active weights against the dense one, in float64."""

from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from by_hand import flat
from curved import NETS, active_hessian, curved
from sparseflow.autodiff import Slopes
from sparseflow.core import BadValue, SparseflowError
from sparseflow.measure import Hessian
from sparseflow.measure.curvature import alignment, predicted_step, spectrum
from sparseflow.sparse import compact

every_net = pytest.mark.parametrize("net", NETS)


def vectors(size: int, k: int = 3) -> torch.Tensor:
    return torch.randn(size, k, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@every_net
@pytest.mark.parametrize("options", [{}, {"keep_graphs": False}, {"vectors_at_once": 2}], ids=str)
def test_products_and_matrix_are_the_dense_hessians(net, options):
    of = curved(net)
    expected = active_hessian(of)
    hessian = Hessian(*of.arguments, **options)
    assert hessian.size == len(expected)
    v = vectors(hessian.size)
    torch.testing.assert_close(hessian.matmat(v), expected @ v, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(hessian.matvec(v[:, 0]), expected @ v[:, 0], rtol=1e-9, atol=1e-11)
    assert hessian.products == 4
    seen = []
    torch.testing.assert_close(hessian.exact(lambda *at: seen.append(at)), expected, rtol=1e-9, atol=1e-11)
    assert seen[-1] == (hessian.size, hessian.size)
    assert hessian.products == 4 + hessian.size
    assert hessian.trace(lambda *at: seen.append(at)) == pytest.approx(float(expected.trace()), rel=1e-9)
    assert seen.count((hessian.size, hessian.size)) == 2


@every_net
def test_the_spectrum_is_numpys(net):
    of = curved(net)
    expected = np.linalg.eigvalsh(active_hessian(of).numpy())
    np.testing.assert_allclose(spectrum(Hessian(*of.arguments)), expected, rtol=0, atol=1e-10 * abs(expected).max())


@every_net
def test_masked_coordinates_are_absent(net):
    """As many coordinates as active weights, none of which has a row of zeros for being masked."""
    of = curved(net, density=0.5)
    hessian = Hessian(*of.arguments)
    active = sum(int(mask.sum()) for mask in of.masks.values())
    assert hessian.size == active < sum(mask.numel() for mask in of.masks.values())
    torch.testing.assert_close(hessian.exact(), active_hessian(of), rtol=1e-9, atol=1e-11)
    back = hessian.coordinates.dense(hessian.weights)
    for name, mask in of.masks.items():
        assert torch.equal(back[name], of.model.get_parameter(name).detach())
        assert not back[name][~mask].any()


@pytest.mark.parametrize("net", ["norm", "conv", "mlp"])
def test_other_parameters_come_after_the_weights(net):
    of = curved(net)
    hessian = Hessian(*of.arguments, others=True)
    torch.testing.assert_close(hessian.exact(), active_hessian(of, others=True), rtol=1e-9, atol=1e-11)


def test_batch_norm_by_the_batchs_statistics():
    of = curved("norm", density=0.6)
    hessian = Hessian(*of.arguments, batch_norm="train")
    expected = active_hessian(of, training=True)
    torch.testing.assert_close(hessian.exact(), expected, rtol=1e-8, atol=1e-10)
    assert (expected - active_hessian(of)).abs().max() > 1e-2


@pytest.mark.parametrize("net", ["mlp", "conv", "norm"])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_compact_execution_has_the_same_hessian(net, batch_norm):
    of = curved(net, density=0.5)
    expected = active_hessian(of, training=batch_norm == "train")
    given = compact(copy.deepcopy(of.model), of.masks)
    assert given.compacted
    rest = {name: of.masks[name] for name in given.left_masked}
    for hessian in (
        Hessian(*of.arguments, compact=True, batch_norm=batch_norm),
        Hessian(given.model, of.case.loss, of.batches, rest, batch_norm=batch_norm),
        Hessian(given.model, of.case.loss, of.batches, of.masks, batch_norm=batch_norm),
    ):
        torch.testing.assert_close(hessian.exact(), expected, rtol=1e-8, atol=1e-10)
        back = hessian.coordinates.dense(hessian.weights)
        assert all(torch.equal(back[name], of.model.get_parameter(name).detach()) for name in of.masks)


@every_net
def test_value_and_gradient_are_those_of_the_mean_loss(net):
    of = curved(net)
    of.model.eval()
    examples = sum(len(y) for _, y in of.batches)
    value = sum(len(y) / examples * of.case.loss(of.model(x), y) for x, y in of.batches)
    weights = {name: p for name, p in of.model.named_parameters() if p.dim() >= 2}
    slopes = dict(zip(weights, torch.autograd.grad(value, list(weights.values())), strict=True))
    active = flat({name: of.masks.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in weights.items()})
    hessian = Hessian(*of.arguments)
    assert hessian.value == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(hessian.gradient, flat(slopes)[active])
    torch.testing.assert_close(hessian.weights, flat(weights).detach()[active])


def test_float32_and_a_dtype_of_choice():
    of = curved("masked")
    expected = active_hessian(of)
    of.case.model.float()
    of.case.batches = [(x.float(), y) for x, y in of.batches]
    single, double = Hessian(*of.arguments), Hessian(*of.arguments, dtype=torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.exact().double(), expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(double.exact(), expected, rtol=1e-5, atol=1e-6)


def test_scipy_takes_the_operator():
    of = curved("mlp")
    expected = np.linalg.eigvalsh(active_hessian(of).numpy())
    found = eigsh(Hessian(*of.arguments).operator(), k=3, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), expected[-3:], atol=1e-9)


def test_without_kept_graphs_one_batchs_graph_is_there_at_a_time(monkeypatch):
    of, alive = curved("mlp"), weakref.WeakSet()
    most = {True: 0, False: 0}

    class Watched(Slopes):
        def __init__(self, *arguments):
            most[keep] = max(most[keep], len(alive))
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr("sparseflow.measure.curvature.hessian.Slopes", Watched)
    for keep in (False, True):
        hessian = Hessian(of.model, of.case.loss, [*of.batches, *of.batches], keep_graphs=keep)
        hessian.matmat(vectors(hessian.size))
        assert len(alive) == (4 if keep else 0)
    assert most == {False: 0, True: 3}


def test_the_operator_is_of_the_moment_it_was_made():
    of = curved("masked")
    expected = active_hessian(of)
    for options in ({}, {"keep_graphs": False}, {"compact": True}):
        model = copy.deepcopy(of.model)
        hessian = Hessian(model, of.case.loss, of.batches, of.masks, **options)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        torch.testing.assert_close(hessian.exact(), expected, rtol=1e-8, atol=1e-10)


def test_a_tied_weight_has_one_set_of_coordinates_and_one_mask():
    of = curved("tied")
    assert list(Hessian(*of.arguments).coordinates.places) == ["first.weight", "middle.weight", "output.weight"]
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        of.model.middle.weight.mul_(mask)
    whole = active_hessian(of)
    keep = torch.ones(len(whole), dtype=torch.bool)
    keep[24:40] = mask.flatten()
    for names in (("middle.weight",), ("again.weight",), ("again.weight", "middle.weight")):
        found = Hessian(of.model, of.case.loss, of.batches, dict.fromkeys(names, mask)).exact()
        torch.testing.assert_close(found, whole[keep][:, keep], rtol=1e-9, atol=1e-11)
    two = {"middle.weight": mask, "again.weight": torch.ones_like(mask)}
    with pytest.raises(BadValue, match=r"middle\.weight and again\.weight are one parameter and have two masks"):
        Hessian(of.model, of.case.loss, of.batches, two)


# Steps ---------------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """Its loss is 1/2 theta' A theta - b' theta for the flat weight theta."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = a
        self.weight = nn.Parameter(torch.linspace(-1, 2, len(a), dtype=torch.float64).view(2, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.weight.flatten()
        return theta @ self.a @ theta / 2 - x[0] @ theta


def quadratic() -> tuple[Quadratic, list]:
    a = vectors(6, 6)
    return Quadratic(a + a.T), [(vectors(6, 1).T, torch.zeros(1))]


def test_a_quadratic_loss_steps_as_predicted():
    """Exactly, at any rate; and its Hessian is its matrix."""
    model, batches = quadratic()

    def loss(out, y):
        return out

    hessian = Hessian(model, loss, batches)
    torch.testing.assert_close(hessian.exact(), model.a)
    g = hessian.gradient
    torch.testing.assert_close(g, model.a @ hessian.weights - batches[0][0][0])
    for rate in (0.0, 0.01, 0.3):
        step = predicted_step(hessian, rate)
        stepped = copy.deepcopy(model)
        with torch.no_grad():
            stepped.weight.sub_(rate * g.view(2, -1))
        assert step.change == pytest.approx(stepped(batches[0][0]).item() - hessian.value, abs=1e-10)
        assert step.first == pytest.approx(-rate * float(g @ g))
        assert step.second == pytest.approx(rate**2 / 2 * float(g @ model.a @ g))
        assert step.curvature == pytest.approx(float(g @ model.a @ g / (g @ g)))
    with pytest.raises(BadValue, match="rate must not be negative, got -1"):
        predicted_step(hessian, -1.0)


@every_net
def test_a_small_step_changes_the_loss_as_predicted_to_third_order(net):
    of = curved(net)
    of.model.eval()
    hessian = Hessian(*of.arguments)

    def off(rate: float) -> float:
        model = copy.deepcopy(of.model)
        hessian.coordinates.place(model, hessian.weights - rate * hessian.gradient)
        return abs(Hessian(model, of.case.loss, of.batches, of.masks).value - hessian.value - predicted(rate))

    def predicted(rate: float) -> float:
        return predicted_step(hessian, rate).change

    assert off(0.001) < 0.05 * abs(predicted_step(hessian, 0.001).second)
    assert off(0.001) / off(0.0005) == pytest.approx(8, rel=0.05)


def test_alignment_is_the_cosine():
    hessian = Hessian(*curved("masked").arguments)
    _, every = torch.linalg.eigh(hessian.exact())
    cosines = alignment(hessian.gradient, every)
    assert float((cosines**2).sum()) == pytest.approx(1)
    torch.testing.assert_close(cosines, every.T @ hessian.gradient / hessian.gradient.norm())
    torch.testing.assert_close(alignment(every[:, 3], every).abs(), torch.eye(len(every), dtype=torch.float64)[3])
    with pytest.raises(BadValue, match="the gradient is 0"):
        alignment(torch.zeros(hessian.size), every)
    with pytest.raises(BadValue, match="the vectors shape"):
        alignment(hessian.gradient[:-1], every)


# Bad input -----------------------------------------------------------------------------------------------------------


def test_what_has_no_hessian_is_refused():
    of = curved("masked")
    model, loss, batches, masks = of.arguments
    with pytest.raises(BadValue, match="the model has no active weight"):
        Hessian(nn.Sequential(nn.Flatten()), loss, batches)
    none = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    empty = copy.deepcopy(model)
    for name in none:
        nn.init.zeros_(empty.get_parameter(name))
    with pytest.raises(BadValue, match="the model has no active weight"):
        Hessian(empty, loss, batches, none)
    with pytest.raises(SparseflowError, match=r"must return a scalar tensor, got shape \(7, 3\)"):
        Hessian(model, lambda out, y: out, batches, masks)
    x, y = batches[1]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(BadValue, match="the loss of batch 2 of 2 is nan"):
            Hessian(model, loss, [batches[0], (x * bad, y)], masks)
    with pytest.raises(BadValue, match="the gradient of batch 1 of 2 is not finite, its loss 0"):
        Hessian(model, lambda out, y: (0 * out).abs().sum().sqrt(), batches, masks)
    with pytest.raises(BadValue, match="vectors_at_once must be at least 1, got 0"):
        Hessian(model, loss, batches, masks, vectors_at_once=0)
    with pytest.raises(BadValue, match="no batches were given"):
        Hessian(model, loss, [], masks)
    with pytest.raises(BadValue, match="batch_norm must be 'train' or 'eval', got 'both'"):
        Hessian(model, loss, batches, masks, batch_norm="both")
    with pytest.raises(BadValue, match="matches no weight"):
        Hessian(model, loss, batches, {"nothing": masks["0.weight"]})
    fewer = masks["0.weight"].clone()
    fewer[fewer.nonzero()[:9].unbind(1)] = False
    with pytest.raises(BadValue, match=r"0\.weight has 9 nonzero weights where the mask has none"):
        Hessian(model, loss, batches, {**masks, "0.weight": fewer})
    with pytest.raises(BadValue, match="vectors_at_once must be 1 in compact execution"):
        Hessian(model, loss, batches, masks, compact=True, vectors_at_once=2)
    with pytest.raises(BadValue, match=r"the matrix has 37 columns, got vectors of shape \(36, 2\)"):
        Hessian(model, loss, batches, masks).matmat(torch.zeros(36, 2))
    mixed = copy.deepcopy(model)
    mixed[4].float()
    with pytest.raises(BadValue, match=r"of several dtypes \(torch\.float32, torch\.float64\); give dtype="):
        Hessian(mixed, loss, batches, masks)
    made = compact(copy.deepcopy(model), masks).model
    with pytest.raises(BadValue, match="is compact and has another mask"):
        Hessian(made, loss, batches, {**masks, "0.weight": ~masks["0.weight"]})
