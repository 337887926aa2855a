"""The compact convolution."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.sparse import native
from sparseflow.sparse.dense_conv import DenseConv, conv_weight_gradient
from sparseflow.sparse.kernel import Kernel, Pair
from sparseflow.sparse.layer import CompactLayer, Tap
from sparseflow.sparse.layout import batch_last
from sparseflow.sparse.native_conv import NativeConv


class CompactConv2d(CompactLayer):
    """A two-dimensional convolution whose parameters are its active weights; see `CompactLayer`.

    Zero padding, one group, no dilation.

    Args:
        mask: bool (out, in, kh, kw).
        stride, padding: (vertical, horizontal).
    """

    def __init__(
        self,
        mask: Tensor,
        bias: nn.Parameter | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if mask.dim() != 4:
            raise BadValue(f"a convolution's mask is (out, in, kh, kw), got {tuple(mask.shape)}")
        self.out_channels, self.in_channels = mask.shape[:2]
        self.kernel_size: Pair = (mask.shape[2], mask.shape[3])
        self.stride, self.padding = stride, padding
        super().__init__(mask, bias, dtype, device)

    def _make_kernel(self) -> Kernel:
        kind = NativeConv if self.outs.device.type == "cpu" and native.available() else DenseConv
        return kind(self.structure, self.kernel_size, self.stride, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, in, height, width), or without the batch -> (batch, out, height', width'), stored batch last.

        Raises:
            BadValue: for another number of channels or dimensions, or an image smaller than the kernel.
        """
        if x.dim() == 3:
            single: Tensor = self.forward(x[None])[0]
            return single
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise BadValue(
                f"the convolution takes (batch, {self.in_channels}, height, width), got shape {tuple(x.shape)}"
            )
        x_t = batch_last(x.to(self.values.dtype))
        shape = (self.out_channels, *self._output_size(x.shape[2], x.shape[3]), x.shape[0])
        y_t = self._product(x_t, shape)
        if self._tap is not None:
            gradient = partial(_dense_gradient, self.weight_shape, self.stride, self.padding)
            y_t = Tap.apply(y_t, x_t, self._tap, gradient)
        return y_t.movedim(-1, 0)

    def _output_size(self, height: int, width: int) -> Pair:
        across = [
            size + 2 * pad - kernel
            for size, pad, kernel in zip((height, width), self.padding, self.kernel_size, strict=True)
        ]
        if min(across) < 0:
            raise BadValue(f"a {self.kernel_size} kernel with padding {self.padding} is larger than {height} x {width}")
        return across[0] // self.stride[0] + 1, across[1] // self.stride[1] + 1

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, active={self.values.numel()}, bias={self.bias is not None}"
        )


def _dense_gradient(shape: torch.Size, stride: Pair, padding: Pair, g: Tensor, x: Tensor) -> Tensor:
    return conv_weight_gradient(g.movedim(-1, 0), x.movedim(-1, 0), shape, stride, padding)
