"""The three products of a sparse weight, closed under differentiation.

W is the (out, in) matrix that has `values` on its pattern and zeros elsewhere. Activations are feature-major, with the
batch contiguous, which is how the kernels read them:

    mm(values, x)  = W x                      (in, batch)  -> (out, batch)   forward
    mtm(values, g) = W^T g                    (out, batch) -> (in, batch)    gradient of the input
    sd(g, x)       = (g x^T) on W's pattern   (out, batch), (in, batch) -> (active,)   gradient of the values

Each is linear in each argument, and their derivatives are the three products again:

    d mm  : dvalues = sd(g, x),  dx = mtm(values, g)
    d mtm : dvalues = sd(g, u),  dg = mm(values, u)       (u: gradient of mtm's result)
    d sd  : dg = mm(u, x),       dx = mtm(u, g)           (u: gradient of sd's result, shaped like the values)

so gradients of any order and Hessian-vector products are right. They are custom operators with fakes, hence opaque to
`torch.compile` and traced around. The kernels are torch's own CSR products.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

_csr = torch.sparse_csr_tensor

with warnings.catch_warnings():
    # torch says once per process that its CSR tensors are in beta; these products rest on them knowingly.
    warnings.simplefilter("ignore")
    _csr([0, 0], [], [], (1, 1), check_invariants=False)


def _matrix(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return _csr(rows, cols, values, shape, check_invariants=False)


@torch.library.custom_op("sparseflow::mm", mutates_args=())
def mm(
    values: Tensor, x: Tensor, rows: Tensor, cols: Tensor, rows_t: Tensor, cols_t: Tensor, order_t: Tensor
) -> Tensor:
    """W x: (in, batch) -> (out, batch)."""
    y: Tensor = _matrix(rows, cols, values, (rows.numel() - 1, rows_t.numel() - 1)) @ x.contiguous()
    return y


@torch.library.custom_op("sparseflow::mtm", mutates_args=())
def mtm(
    values: Tensor, g: Tensor, rows: Tensor, cols: Tensor, rows_t: Tensor, cols_t: Tensor, order_t: Tensor
) -> Tensor:
    """W^T g: (out, batch) -> (in, batch)."""
    transposed = _matrix(rows_t, cols_t, values[order_t], (rows_t.numel() - 1, rows.numel() - 1))
    h: Tensor = transposed @ g.contiguous()
    return h


@torch.library.custom_op("sparseflow::sd", mutates_args=())
def sd(g: Tensor, x: Tensor, rows: Tensor, cols: Tensor, rows_t: Tensor, cols_t: Tensor, order_t: Tensor) -> Tensor:
    """(g x^T) on the pattern: (out, batch), (in, batch) -> (active,)."""
    pattern = _matrix(rows, cols, g.new_zeros(cols.numel()), (rows.numel() - 1, rows_t.numel() - 1))
    product: Tensor = torch.sparse.sampled_addmm(pattern, g.contiguous(), x.contiguous().t(), beta=0.0)
    return product.values().clone()


@mm.register_fake
def _(values: Tensor, x: Tensor, rows: Tensor, *rest: Tensor) -> Tensor:
    return x.new_empty(rows.shape[0] - 1, x.shape[1])


@mtm.register_fake
def _(values: Tensor, g: Tensor, rows: Tensor, cols: Tensor, rows_t: Tensor, *rest: Tensor) -> Tensor:
    return g.new_empty(rows_t.shape[0] - 1, g.shape[1])


@sd.register_fake
def _(g: Tensor, x: Tensor, rows: Tensor, cols: Tensor, *rest: Tensor) -> Tensor:
    return g.new_empty(cols.shape[0])


_NO_STRUCTURE_GRADIENT = (None,) * 5


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _mm_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    values, x, *structure = ctx.saved_tensors
    g = g.contiguous()  # once for both products
    dvalues = sd(g, x, *structure) if ctx.needs_input_grad[0] else None
    dx = mtm(values, g, *structure) if ctx.needs_input_grad[1] else None
    return dvalues, dx, *_NO_STRUCTURE_GRADIENT


def _mtm_backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
    values, g, *structure = ctx.saved_tensors
    dvalues = sd(g, u, *structure) if ctx.needs_input_grad[0] else None
    dg = mm(values, u, *structure) if ctx.needs_input_grad[1] else None
    return dvalues, dg, *_NO_STRUCTURE_GRADIENT


def _sd_backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
    g, x, *structure = ctx.saved_tensors
    dg = mm(u, x, *structure) if ctx.needs_input_grad[0] else None
    dx = mtm(u, g, *structure) if ctx.needs_input_grad[1] else None
    return dg, dx, *_NO_STRUCTURE_GRADIENT


torch.library.register_autograd("sparseflow::mm", _mm_backward, setup_context=_keep)
torch.library.register_autograd("sparseflow::mtm", _mtm_backward, setup_context=_keep)
torch.library.register_autograd("sparseflow::sd", _sd_backward, setup_context=_keep)
