"""Activation functions by name. Where one has parameters, a layer has one set of them, whatever its width.

(One set per layer keeps the comparison at equal capacity fair: a wider sparse layer gains no activation parameters.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparseflow.core import Catalog

activations: Catalog[Callable[[], nn.Module]] = Catalog("activation")


@activations.add("relu", cite="Nair & Hinton 2010")
def relu() -> nn.Module:
    """max(x, 0)."""
    return nn.ReLU()


@activations.add("relu6", cite="Sandler et al. 2018, arXiv:1801.04381")
def relu6() -> nn.Module:
    """min(max(x, 0), 6)."""
    return nn.ReLU6()


@activations.add("prelu", cite="He et al. 2015, arXiv:1502.01852")
def prelu() -> nn.Module:
    """max(x, 0) + a min(x, 0) with one learned a per layer, 0.25 at first."""
    return nn.PReLU()


@activations.add("elu", cite="Clevert et al. 2015, arXiv:1511.07289")
def elu() -> nn.Module:
    """x for x > 0, exp(x) - 1 below."""
    return nn.ELU()


@activations.add("swish", cite="Ramachandran et al. 2017, arXiv:1710.05941")
def swish() -> nn.Module:
    """x sigmoid(x)."""
    return nn.SiLU()


@activations.add("mish", cite="Misra 2019, arXiv:1908.08681, eq. 1")
def mish() -> nn.Module:
    """x tanh(log(1 + exp(x)))."""
    return nn.Mish()


@activations.add("sigmoid", cite="standard")
def sigmoid() -> nn.Module:
    """1 / (1 + exp(-x))."""
    return nn.Sigmoid()


@activations.add("srelu", cite="Jin et al. 2015, arXiv:1512.07030")
class SReLU(nn.Module):
    """Three line pieces with learned kinks and outer slopes, one set per layer.

    f(x) = t_r + a_r (x - t_r) for x >= t_r;  x in between;  t_l + a_l (x - t_l) for x <= t_l.

    At first t_l = 0, a_l = 0.2, t_r = 1, a_r = 1: the leaky ReLU that Jin et al. start from (their section 3.2; they
    fix t_r from data after some epochs, here it is learned from the beginning, moving once a_r has left 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.t_l = nn.Parameter(torch.empty(1))
        self.a_l = nn.Parameter(torch.empty(1))
        self.t_r = nn.Parameter(torch.empty(1))
        self.a_r = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter, value in ((self.t_l, 0.0), (self.a_l, 0.2), (self.t_r, 1.0), (self.a_r, 1.0)):
            nn.init.constant_(parameter, value)

    def forward(self, x: Tensor) -> Tensor:
        above = self.t_r + self.a_r * (x - self.t_r)
        below = self.t_l + self.a_l * (x - self.t_l)
        return torch.where(x >= self.t_r, above, torch.where(x <= self.t_l, below, x))


PSWISH_GAP = 0.2784645427610738
"""sup |PSwish(x) - ReLU(x)| at beta = 1, and at any other beta this divided by it: Lambert's W(1 / e)."""


def pswish(x: Tensor, beta: Tensor) -> Tensor:
    """x sigmoid(beta x): x / 2 at beta = 0, Swish at 1, ReLU in the limit (003 sec. 2.2).

    Args:
        beta: of no dimensions, or of one entry.
    """
    return x * torch.sigmoid(beta * x)


@activations.add("pswish", cite="Ramachandran et al. 2017, arXiv:1710.05941, sec. 2; 003 sec. 2.2")
class PSwish(nn.Module):
    """x sigmoid(beta x) with one learned beta per layer, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        return pswish(x, self.beta)
