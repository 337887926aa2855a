"""PSwish, Swish and Mish against their limits and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sparseflow.masks import effective
from sparseflow.models import PSWISH_GAP, PSwish, models, pswish


def line(reach: float = 30.0) -> torch.Tensor:
    return torch.linspace(-reach, reach, 200_001, dtype=torch.float64)


def beta(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_pswish_is_half_the_identity_at_beta_0_and_swish_at_1():
    x = line()
    assert torch.equal(pswish(x, beta(0.0)), x / 2)
    torch.testing.assert_close(pswish(x, beta(1e-9)), x / 2, rtol=1e-7, atol=0)
    torch.testing.assert_close(pswish(x, beta(1.0)), F.silu(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("b", [1.0, 3.0, 50.0, 2785.0])
def test_pswish_is_within_its_gap_of_relu_and_reaches_it(b):
    """The gap is the maximum W(1/e) of z sigmoid(-z), at z = 1 + W(1/e), where W e^W = 1/e."""
    x = line(20.0 / b)
    gap = (pswish(x, beta(b)) - x.relu()).abs().max()
    assert float(gap) == pytest.approx(PSWISH_GAP / b, rel=1e-6)
    z = beta(1 + PSWISH_GAP)
    assert float(z * torch.sigmoid(-z)) == pytest.approx(PSWISH_GAP, rel=1e-14)
    assert PSWISH_GAP * torch.e**PSWISH_GAP == pytest.approx(1 / torch.e, rel=1e-14)


@pytest.mark.parametrize("b", [0.0, 1e-3, 1.0, 7.0, 2785.0])
def test_pswish_gradients_of_both_orders(b):
    x = torch.tensor([-2.3, -0.4, -1e-3, 0.0, 1e-3, 0.7, 3.1], dtype=torch.float64) / max(1.0, b)
    inputs = (x.requires_grad_(), beta(b).requires_grad_())
    assert torch.autograd.gradcheck(pswish, inputs, eps=1e-7 / max(1.0, b))
    if b <= 7:
        assert torch.autograd.gradgradcheck(pswish, inputs)


def test_pswish_is_finite_far_away():
    x = torch.tensor([-1e30, -1e4, 1e4, 1e30], requires_grad=True)
    y = pswish(x, torch.tensor(2785.0))
    y.sum().backward()
    assert y.tolist() == x.relu().tolist()
    assert x.grad.tolist() == [0, 0, 1, 1]


def test_pswish_learns_its_beta():
    layer = PSwish()
    assert [p.tolist() for p in layer.parameters()] == [[1.0]]
    layer(torch.tensor([0.5, -2.0])).sum().backward()
    z = beta(1.0)
    slope = sum(v**2 * torch.sigmoid(z * v) * torch.sigmoid(-z * v) for v in (beta(0.5), beta(-2.0)))
    assert float(layer.beta.grad) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("name", ["swish", "mish", "pswish"])
def test_paths_are_followed_through_soft_neurons(name):
    torch.manual_seed(0)
    nets = [models["lenet-300-100"]((1, 4, 4), 3, width=6, activation=a) for a in ("relu", name)]
    masks = {key: torch.rand(p.shape) < 0.4 for key, p in nets[0].named_parameters() if p.dim() > 1}
    found = [effective(net, masks, (1, 4, 4)) for net in nets]
    assert found[0].layers == found[1].layers
    assert 0 < found[0].effective_density < 1
