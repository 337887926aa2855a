"""The rival that torch itself offers: its CSR products, with activations feature-major as they want them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # torch says once per process that its CSR tensors are in beta.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


class TorchCsrLinear(nn.Module):
    """y = x W^T with W in CSR: its product, the product with the transpose, and sampled_addmm for the values.

    The transposed structure is kept, so that a backward pass only gathers values.
    """

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        rows, cols = mask.nonzero(as_tuple=True)
        order = torch.argsort(cols, stable=True)
        self.structure = (_starts(rows, mask.shape[0]), cols.int(), _starts(cols, mask.shape[1]), rows[order].int())
        self.order = order.int()
        self.values = nn.Parameter(layer.weight.detach()[mask])

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in) -> (batch, out), a transposed view; without a copy if x is one too."""
        y: Tensor = _Product.apply(self.values, x.t().contiguous(), self.structure, self.order)
        return y.t()


class _Product(torch.autograd.Function):
    """W x for x (in, batch); first order only."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, structure: tuple[Tensor, ...], order: Tensor) -> Tensor:
        ctx.save_for_backward(values, x)
        ctx.structure, ctx.order = structure, order
        starts, cols, starts_t, _ = structure
        y: Tensor = _matrix(starts, cols, values, starts_t) @ x
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        values, x = ctx.saved_tensors
        starts, cols, starts_t, cols_t = ctx.structure
        g = g.contiguous()
        dx = _matrix(starts_t, cols_t, values[ctx.order], starts) @ g
        pattern = _matrix(starts, cols, torch.zeros_like(values), starts_t)
        dvalues = torch.sparse.sampled_addmm(pattern, g, x.t(), beta=0.0).values()
        return dvalues, dx, None, None


def _matrix(starts: Tensor, cols: Tensor, values: Tensor, starts_t: Tensor) -> Tensor:
    shape = (starts.numel() - 1, starts_t.numel() - 1)
    return torch.sparse_csr_tensor(starts, cols, values, shape, check_invariants=False)


def _starts(index: Tensor, size: int) -> Tensor:
    counts = torch.bincount(index, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
