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
    moved = x.movedim(0, -1)
    if moved.is_contiguous():
        return moved
    if torch.compiler.is_compiling() or not _can_turn(x):
        return moved.contiguous()
    turned: Tensor = _Turn.apply(x)
    return turned


def packed(x: Tensor) -> Tensor:
    """(..., batch) -> the same, contiguous; not differentiable."""
    if x.is_contiguous():
        return x
    moved = x.movedim(-1, 0)
    return _turned(moved) if moved.is_contiguous() and _can_turn(moved) else x.contiguous()


def _can_turn(x: Tensor) -> bool:
    usual = x.device.type == "cpu" and x.dtype in native.DTYPES and x.numel() > 0 and x.is_contiguous()
    return usual and not x.is_neg() and native.available()


def _turned(x: Tensor) -> Tensor:
    """(batch, ...) -> (..., batch) by the transposing kernel."""
    y = x.new_empty(*x.shape[1:], x.shape[0])
    native.linear().turn(x.element_size(), x.shape[0], x[0].numel(), native.buffer(x), native.buffer(y))
    return y


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _turned(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.movedim(-1, 0)
