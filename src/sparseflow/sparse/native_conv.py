"""The checked border of the C kernels for convolutions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sparseflow.sparse import parts
from sparseflow.sparse.kernel import Pair, Shape
from sparseflow.sparse.native import buffer, checked, conv
from sparseflow.sparse.structure import Structure

_MIN_WORK = 1 << 21
"""Multiply-adds that repay waking another thread."""


class NativeConv:
    """`Kernel` of a convolution on the CPU; activations (channels, height, width, batch), float32 or float64.

    Its results do not depend on the number of threads: they share outputs, never a sum.

    Args:
        structure: of the weight (out, in, *kernel_size).
    """

    def __init__(self, structure: Structure, kernel_size: Pair, stride: Pair, padding: Pair) -> None:
        self._out = structure.shape[0]
        self._in = structure.shape[1] // (kernel_size[0] * kernel_size[1])
        self._active = structure.active
        self._stride, self._padding = stride, padding
        starts, outs = structure.starts.contiguous(), structure.outs.contiguous()
        self._c = conv().ConvStructure(self._out, self._in, *kernel_size, buffer(starts), buffer(outs))

    def forward(self, values: Tensor, x: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        checked("values", values, (self._active,), values.dtype)
        checked("x", x, (self._in, *x.shape[1:]), values.dtype)
        if bias is not None:
            checked("bias", bias, (self._out,), values.dtype)
        y = x.new_empty(shape)
        if not x.numel():
            return y
        buffers = buffer(values), buffer(x), None if bias is None else buffer(bias), buffer(y)
        self._run(self._c.forward, x.element_size(), x.shape, y, buffers)
        return y

    def backward(
        self, g: Tensor, shape: Shape, values: Tensor | None, x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        checked("g", g, (self._out, *g.shape[1:]), g.dtype)
        if values is not None:
            checked("values", values, (self._active,), g.dtype)
        if x is not None:
            checked("x", x, shape, g.dtype)
        dx = None if values is None else g.new_empty(shape)
        dvalues = None if x is None else g.new_empty(self._active)
        if not g.numel():
            return None if dx is None else dx.zero_(), None if dvalues is None else dvalues.zero_()
        buffers = (buffer(g), *(None if t is None else buffer(t) for t in (values, x, dx, dvalues)))
        self._run(self._c.backward, g.element_size(), shape, g, buffers)
        return dx, dvalues

    def _run(
        self, call: Callable[..., None], itemsize: int, x_shape: Shape, y: Tensor, buffers: tuple[object, ...]
    ) -> None:
        _, height, width, batch = x_shape
        work = self._active * y[0].numel()
        parts.run(call, (itemsize, (batch, height, width), self._stride, self._padding, *buffers), work, _MIN_WORK)
