"""Activations with the batch last: how sparse kernels read them, and how they are kept from layer to layer.

A compact layer returns the usual (batch, features) or (batch, channels, height, width), as a view of memory in which
the batch runs fastest. Elementwise operations keep that order, so the next compact layer finds its input ready.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseflow.sparse import native


def batch_last(x: Tensor) -> Tensor:
    """(batch, ...) -> (..., batch), contiguous; differentiable, and no copy where the memory is in that order."""
    moved = x.t() if x.dim() == 2 else x.movedim(0, -1)
    if moved.is_contiguous():
        return moved
    return _turn(x) if _can_turn(x) else moved.contiguous()


def batch_first(x: Tensor) -> Tensor:
    """(batch, ...) stored anyhow, as compact layers do -> the same, contiguous; differentiable."""
    if x.is_contiguous():
        return x
    moved = x.movedim(0, -1)
    return _turn(moved, to_last=False) if _can_turn(moved) else x.contiguous()


def packed(x: Tensor) -> Tensor:
    """(..., batch) -> the same, contiguous; not differentiable."""
    if x.is_contiguous():
        return x
    moved = x.movedim(-1, 0)
    return _turned(moved, True) if _can_turn(moved) else x.contiguous()


def _can_turn(x: Tensor) -> bool:
    usual = x.device.type == "cpu" and x.dtype in native.DTYPES and x.numel() > 0 and x.is_contiguous()
    eager = type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    return usual and eager and not x.is_neg() and native.available()


def _turn(x: Tensor, to_last: bool = True) -> Tensor:
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _turned(x, to_last)
    turned: Tensor = _Turn.apply(x, to_last)
    return turned


def _turned(x: Tensor, to_last: bool) -> Tensor:
    """The first dimension last, or the last first, by the transposing kernel."""
    rest = x.shape[1:] if to_last else x.shape[:-1]
    batch = x.shape[0] if to_last else x.shape[-1]
    y = x.new_empty((*rest, batch) if to_last else (batch, *rest))
    rows, cols = (batch, rest.numel()) if to_last else (rest.numel(), batch)
    native.linear().turn(x.element_size(), rows, cols, native.buffer(x), native.buffer(y))
    return y


class _Turn(torch.autograd.Function):
    """`_turned`; the gradient is turned back, into the order of the tensor it belongs to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to_last: bool) -> Tensor:
        ctx.to_last = to_last
        return _turned(x, to_last)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        if _can_turn(g):
            return _turn(g, not ctx.to_last), None
        return (g.movedim(-1, 0) if ctx.to_last else g.movedim(0, -1)), None
