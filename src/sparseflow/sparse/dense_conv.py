"""Convolutions by torch's dense kernels: for devices and machines that have no sparse ones."""

from __future__ import annotations

from math import prod

from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad

from sparseflow.sparse.kernel import Pair, Shape
from sparseflow.sparse.structure import Structure


class DenseConv:
    """`Kernel` of a convolution on any device, at the cost of a dense one; values stay compact between calls.

    Activations (channels, height, width, batch).
    """

    def __init__(self, structure: Structure, kernel_size: Pair, stride: Pair, padding: Pair) -> None:
        self._flat = structure.flat()
        out, columns = structure.shape
        self._shape = (out, columns // (kernel_size[0] * kernel_size[1]), *kernel_size)
        self._stride, self._padding = stride, padding

    def _weight(self, values: Tensor) -> Tensor:
        flat = values.new_zeros(prod(self._shape))
        return flat.index_put_((self._flat,), values).view(self._shape)

    def forward(self, values: Tensor, x: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        if not x.numel():
            return x.new_empty(shape)
        y = F.conv2d(x.movedim(-1, 0), self._weight(values), bias, self._stride, self._padding)
        return y.movedim(0, -1).contiguous()

    def backward(
        self, g: Tensor, shape: Shape, values: Tensor | None, x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if not g.numel():
            zero = None if x is None else g.new_zeros(self._flat.numel())
            return None if values is None else g.new_zeros(shape), zero
        g = g.movedim(-1, 0)
        size = (shape[-1], *shape[:-1])
        dx = dvalues = None
        if values is not None:
            dx = grad.conv2d_input(size, self._weight(values), g, self._stride, self._padding)
            dx = dx.movedim(0, -1).contiguous()
        if x is not None:
            dvalues = conv_weight_gradient(g, x.movedim(-1, 0), self._shape, self._stride, self._padding).reshape(-1)[
                self._flat
            ]
        return dx, dvalues


def conv_weight_gradient(g: Tensor, x: Tensor, shape: Shape, stride: Pair, padding: Pair) -> Tensor:
    """The dense weight's gradient, (out, in, kh, kw), of g and x in the usual (batch, channels, height, width)."""
    weight: Tensor = grad.conv2d_weight(x, shape, g, stride, padding)
    return weight
