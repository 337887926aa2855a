"""The products of a sparse weight, closed under differentiation.

W is the matrix (or convolution) that has `values` on its pattern and zeros elsewhere. Activations have the features
first and the batch last, which is how the kernels read them:

    mm(values, x)      = W x (+ bias)             forward
    mtm(values, g)     = W^T g                    gradient of the input
    sd(g, x)           = (g x^T) on W's pattern   gradient of the values
    both(values, x, g) = mtm and sd in one pass over the weight

Each is linear in each argument, and their derivatives are these products again:

    d mm  : dvalues, dx = both(values, x, g),     dbias = sum of g over the batch
    d mtm : dvalues = sd(g, u),  dg = mm(values, u)       (u: gradient of mtm's result)
    d sd  : dg = mm(u, x),       dx = mtm(u, g)           (u: gradient of sd's result, shaped like the values)

so gradients of any order and Hessian-vector products are right. They are `torch.library` operators with fakes, opaque
to `torch.compile`, which traces around them. Eager code takes a shorter way to the same kernels and the same
derivatives: an operator's dispatch costs as much as a small layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseflow.sparse.kernel import find
from sparseflow.sparse.layout import packed

Grads = tuple[Tensor | None, ...]


def _mm(values: Tensor, x: Tensor, bias: Tensor | None, handle: Tensor, shape: Sequence[int]) -> Tensor:
    """W x (+ bias), of the given shape."""
    return find(handle).forward(values, packed(x), bias, tuple(shape))


def _mtm(values: Tensor, g: Tensor, handle: Tensor, shape: Sequence[int]) -> Tensor:
    """W^T g, of the given shape."""
    h, _ = find(handle).backward(packed(g), tuple(shape), values, None)
    assert h is not None
    return h


def _sd(g: Tensor, x: Tensor, handle: Tensor, active: int) -> Tensor:
    """(g x^T) on the pattern: (active,)."""
    x = packed(x)
    _, dvalues = find(handle).backward(packed(g), tuple(x.shape), None, x)
    assert dvalues is not None
    return dvalues


def _both(values: Tensor, x: Tensor, g: Tensor, handle: Tensor) -> tuple[Tensor, Tensor]:
    """(W^T g, (g x^T) on the pattern)."""
    x = packed(x)
    dx, dvalues = find(handle).backward(packed(g), tuple(x.shape), values, x)
    assert dx is not None
    assert dvalues is not None
    return dx, dvalues


def _fake_mm(values: Tensor, x: Tensor, bias: Tensor | None, handle: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(tuple(shape))


def _fake_mtm(values: Tensor, g: Tensor, handle: Tensor, shape: Sequence[int]) -> Tensor:
    return g.new_empty(tuple(shape))


def _fake_sd(g: Tensor, x: Tensor, handle: Tensor, active: int) -> Tensor:
    return g.new_empty(active)


def _fake_both(values: Tensor, x: Tensor, g: Tensor, handle: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), values.new_empty(values.shape)


def _keep_mm(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    values, x, _, handle, _ = inputs
    ctx.save_for_backward(values, x, handle)


def _mm_backward(ctx: Any, g: Tensor) -> Grads:
    values, x, handle = ctx.saved_tensors
    want_values, want_x, want_bias = ctx.needs_input_grad[:3]
    dvalues = dx = None
    if want_values and want_x:
        dx, dvalues = both(values, x, g, handle)
    elif want_x:
        dx = mtm(values, g, handle, x.shape)
    elif want_values:
        dvalues = sd(g, x, handle, values.numel())
    return dvalues, dx, g.flatten(1).sum(1) if want_bias else None, None, None


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))


def _mtm_backward(ctx: Any, u: Tensor) -> Grads:
    values, g, handle = ctx.saved_tensors
    dvalues = sd(g, u, handle, values.numel()) if ctx.needs_input_grad[0] else None
    dg = mm(values, u, None, handle, g.shape) if ctx.needs_input_grad[1] else None
    return dvalues, dg, None, None


def _sd_backward(ctx: Any, u: Tensor) -> Grads:
    g, x, handle = ctx.saved_tensors
    dg = mm(u, x, None, handle, g.shape) if ctx.needs_input_grad[0] else None
    dx = mtm(u, g, handle, x.shape) if ctx.needs_input_grad[1] else None
    return dg, dx, None, None


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)  # often only one of the two results is differentiated again
    _keep(ctx, inputs, output)


def _both_backward(ctx: Any, u: Tensor | None, v: Tensor | None) -> Grads:
    """u: gradient of W^T g; v: gradient of the values' gradient."""
    values, x, g, handle = ctx.saved_tensors
    want_values, want_x, want_g = ctx.needs_input_grad[:3]
    dvalues = sd(g, u, handle, values.numel()) if want_values and u is not None else None
    dx = mtm(v, g, handle, x.shape) if want_x and v is not None else None
    dg = None
    if want_g and u is not None:
        dg = mm(values, u, None, handle, g.shape)
    if want_g and v is not None:
        more = mm(v, x, None, handle, g.shape)
        dg = more if dg is None else dg + more
    return dvalues, dx, dg, None


_PLAIN = (Tensor, torch.nn.Parameter)
_transformed: Any = torch._C._are_functorch_transforms_active


def _product(body: Any, fake: Any, keep: Any, backward: Any, handle_at: int) -> Any:
    """The public product: an operator where something traces, an autograd function around the same body elsewhere."""
    name = body.__name__.lstrip("_")
    operator = torch.library.custom_op(f"sparseflow::{name}", body, mutates_args=())
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=keep)

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = body(*inputs)
        keep(ctx, inputs, output)
        ctx.kernel = find(inputs[handle_at])  # the graph may outlive the layer
        return output

    # With a forward of its own, not a `setup_context`: torch would inspect its signature in every call.
    parts = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    eager: Any = type(f"_{name.title()}", (torch.autograd.Function,), parts)

    def product(*inputs: Any) -> Any:
        plain = type(inputs[0]) in _PLAIN and type(inputs[1]) in _PLAIN
        if torch.compiler.is_compiling() or not plain or _transformed():
            return operator(*inputs)
        return eager.apply(*inputs) if torch.is_grad_enabled() else body(*inputs)

    product.__name__ = product.__qualname__ = name
    product.__doc__ = body.__doc__
    return product


mm = _product(_mm, _fake_mm, _keep_mm, _mm_backward, 3)
mtm = _product(_mtm, _fake_mtm, _keep, _mtm_backward, 2)
sd = _product(_sd, _fake_sd, _keep, _sd_backward, 2)
both = _product(_both, _fake_both, _keep_both, _both_backward, 3)
