"""The compact linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.sparse import native
from sparseflow.sparse.csr import CsrKernel
from sparseflow.sparse.kernel import Kernel
from sparseflow.sparse.layer import CompactLayer, Tap
from sparseflow.sparse.layout import batch_last
from sparseflow.sparse.native_linear import NativeLinear


class CompactLinear(CompactLayer):
    """y = x W^T + b, with W's active values as the parameter `values`; see `CompactLayer`.

    Args:
        mask: bool (out, in).
    """

    def __init__(
        self,
        mask: Tensor,
        bias: nn.Parameter | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if mask.dim() != 2:
            raise BadValue(f"a linear layer's mask is (out, in), got {tuple(mask.shape)}")
        self.out_features, self.in_features = mask.shape
        super().__init__(mask, bias, dtype, device)

    def _make_kernel(self) -> Kernel:
        on_cpu = self.outs.device.type == "cpu"
        return NativeLinear(self.structure) if on_cpu and native.available() else CsrKernel(self.structure)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) -> (..., out); a two-dimensional result is stored with the batch last.

        Raises:
            BadValue: for another number of features.
        """
        if x.shape[-1:] != (self.in_features,):
            raise BadValue(f"the layer takes (..., {self.in_features}), got shape {tuple(x.shape)}")
        flat = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        x_t = batch_last(flat.to(self.values.dtype))
        y_t = self._product(x_t, (self.out_features, x_t.shape[1]))
        if self._tap is not None:
            y_t = Tap.apply(y_t, x_t, self._tap, _dense_gradient)
        y = y_t.t()
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, active={self.values.numel()}, "
            f"bias={self.bias is not None}"
        )


def _dense_gradient(g: Tensor, x: Tensor) -> Tensor:
    return g @ x.t()
