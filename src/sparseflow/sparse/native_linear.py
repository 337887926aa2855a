"""The checked border of the C kernels for linear layers."""

from __future__ import annotations

from torch import Tensor

from sparseflow.sparse import parts
from sparseflow.sparse.kernel import Shape
from sparseflow.sparse.native import buffer, checked, linear
from sparseflow.sparse.structure import Structure

Blocks = tuple[int, int, int, int]

_MIN_WORK = 1 << 21
"""Multiply-adds that repay waking another thread."""


class NativeLinear:
    """`Kernel` of a linear layer on the CPU; activations (features, batch), float32 or float64.

    Its results do not depend on the number of threads: they share outputs, never a sum.

    Args:
        blocks: block sizes, (outputs, inputs) of the forward and (inputs, outputs) of the backward product; by default
            what was measured to be fast.
    """

    def __init__(self, structure: Structure, blocks: Blocks | None = None) -> None:
        self._shape, self._active = structure.shape, structure.active
        starts, outs = structure.starts.contiguous(), structure.outs.contiguous()
        blocks = blocks or default_blocks(*self._shape, self._active)
        self._c = linear().Structure(*self._shape, buffer(starts), buffer(outs), blocks)

    def forward(self, values: Tensor, x: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        out_features, in_features = self._shape
        batch = x.shape[1]
        checked("values", values, (self._active,), values.dtype)
        checked("x", x, (in_features, batch), values.dtype)
        if bias is not None:
            checked("bias", bias, (out_features,), values.dtype)
        y = x.new_empty(out_features, batch)
        if not batch:
            return y
        fixed = (x.element_size(), batch, buffer(values), buffer(x), bias if bias is None else buffer(bias), buffer(y))
        parts.run(self._c.forward, fixed, self._active * batch, _MIN_WORK)
        return y

    def backward(
        self, g: Tensor, shape: Shape, values: Tensor | None, x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        out_features, in_features = self._shape
        batch = g.shape[1]
        checked("g", g, (out_features, batch), g.dtype)
        if values is not None:
            checked("values", values, (self._active,), g.dtype)
        if x is not None:
            checked("x", x, (in_features, batch), g.dtype)
        dx = None if values is None else g.new_empty(in_features, batch)
        dvalues = None if x is None else g.new_empty(self._active)
        if not batch:
            return dx, None if dvalues is None else dvalues.zero_()
        buffers = (None if t is None else buffer(t) for t in (values, x, dx, dvalues))
        parts.run(self._c.backward, (g.element_size(), batch, buffer(g), *buffers), self._active * batch, _MIN_WORK)
        return dx, dvalues


def default_blocks(n_out: int, n_in: int, active: int) -> Blocks:
    """The widest panel that still serves a row with enough weights.

    A visit to a row costs loading and storing its sums, which about ten weights repay in the forward product (forty in
    the backward one, whose weights do twice the work per load). Where density allows, the panel shrinks to what the
    first-level cache holds; below, the second-level cache must do. An input's values for a block of outputs stand
    together: fewer than ten cost more to fetch than to use.
    """
    density = max(active, 1) / (n_out * n_in)
    return (
        _part(n_out, max(512, 10 / density), shared=True),
        _part(n_in, max(64, 10 / density)),
        _part(n_in, 512, shared=True),
        _part(n_out, max(192, 40 / density)),
    )


def _part(features: int, size: float, shared: bool = False) -> int:
    """A size near this one that cuts the features evenly: a small last part costs nearly what a whole one does.

    Args:
        shared: the parts are those that threads share: one, or an even number.
    """
    parts = max(1, round(features / min(size, 4096)))
    parts += shared and parts > 1 and parts % 2
    return max(16, -(-features // parts))
