"""Every timed implementation computes what the dense layer with the same active weights computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.bench.cases import LayerCase
from sparseflow.bench.rivals import Missing, forms_for, implementations, prepare
from sparseflow.core import StandsForWeight

CASES = [
    LayerCase(32, 48, 0, 16, 0.3),
    LayerCase(20, 37, 0, 5, 0.1),  # no multiple of any vector's length
    LayerCase(8, 8, 8, 16, 0.2),
    LayerCase(5, 7, 6, 3, 0.4),
]

EVERY_FORM = [
    pytest.param(entry.name, form.name, case, id=f"{entry.name}-{form.name}-{case.title}")
    for entry in implementations
    for case in CASES
    for form in forms_for(entry.name, case)
]


def by_definition(case: LayerCase, mask: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(output, input gradient, gradient of the active weights, row-major) in float64."""
    weight = case.layer(mask).weight.detach().double().requires_grad_()
    leaf = x.detach().double().contiguous().requires_grad_()
    y = F.conv2d(leaf, weight, padding=1) if case.side else F.linear(leaf, weight)
    dx, dw = torch.autograd.grad(y, (leaf, weight), g.double())
    return y.detach(), dx, dw[mask]


def active_gradient(module: nn.Module, mask: Tensor) -> Tensor:
    """The gradient of the active weights, whichever way the module holds them."""
    (parameter,) = module.parameters()
    gradient = parameter.grad
    if isinstance(module, StandsForWeight):  # in an order of its own, which it knows how to undo
        with torch.no_grad():
            module.values.copy_(gradient)
        return module.dense_weight()[mask]
    if gradient.shape == mask.shape:
        return gradient[mask]
    live = getattr(module, "live", None)  # sparselab's rows are padded
    return gradient if live is None else gradient[live]


@pytest.mark.parametrize(("name", "form", "case"), EVERY_FORM)
def test_it_is_the_dense_layer(name, form, case):
    try:
        module, x, g, plain = prepare(name, form, case)
    except Missing as missing:
        pytest.skip(str(missing))
    if implementations.entry(name).facts["twin"]:
        case = case.twin()
    mask = case.mask() if name != "dense" else torch.ones(case.weight_shape, dtype=torch.bool)
    expected = by_definition(case, case.mask(), x, g)
    y = module(x)
    (y.contiguous() if plain else y).backward(g)
    torch.testing.assert_close(y.detach().double(), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), expected[1], rtol=1e-4, atol=1e-5)
    found = active_gradient(module, mask).double()
    if name == "dense":  # it has all weights, and the case's among them
        found = found[case.mask().flatten()]
    torch.testing.assert_close(found, expected[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["masked", "prune"])
def test_masked_gradients_are_masked(name):
    case = CASES[0]
    module, x, g, _ = prepare(name, "", case)
    module(x).backward(g)
    (parameter,) = module.parameters()
    assert not parameter.grad[~case.mask()].any()


def test_a_twin_has_as_many_weights():
    twin = LayerCase(3076, 3076, 0, 128, 0.01).twin()
    assert (twin.into, twin.out, twin.density) == (308, 308, 1.0)
    conv = LayerCase(64, 64, 8, 128, 0.02).twin()
    assert (conv.into, conv.out, conv.side) == (9, 9, 8)
    assert LayerCase(4, 4, 0, 2, 0.01).twin().weight_shape == (1, 1)
