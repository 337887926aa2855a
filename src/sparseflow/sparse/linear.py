"""A linear layer whose parameters are its active weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.sparse.products import mm
from sparseflow.sparse.structure import Structure


class CompactLinear(nn.Module):
    """y = x W^T + b, with W's active values as the parameter `values` and its pattern as buffers.

    Gradient, optimiser state and arithmetic scale with the active weights. `state_dict` emits the dense `weight` that
    the layer stands for and accepts one, so checkpoints are those of the `nn.Linear` it replaced. Under autocast the
    product runs in the values' own precision.

    Args:
        mask: bool (out, in), fixed for the life of the layer.
        bias: the bias parameter of the layer it replaces, or None.
        dtype, device: of the values, which start at 0.
    """

    values: nn.Parameter

    def __init__(
        self,
        mask: Tensor,
        bias: nn.Parameter | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        structure = Structure.of(mask.to(device))
        self.out_features, self.in_features = structure.shape
        self.weight_shape = torch.Size(structure.shape)
        # Not persistent: the pattern is the mask's, which stands beside the model, and not a part of its state.
        for name, tensor in zip(_PATTERN, structure.tensors(), strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self.values = nn.Parameter(torch.zeros(structure.active, dtype=dtype, device=device))
        self.bias = bias
        self._tap: Tensor | None = None

    def _pattern(self) -> list[Tensor]:
        return [self.get_buffer(name) for name in _PATTERN]

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) -> (..., out); a two-dimensional result is stored feature-major, as the next layer wants it."""
        x_t = x.reshape(-1, self.in_features).to(self.values.dtype).t().contiguous()
        with torch.autocast(x_t.device.type, enabled=False):
            y_t: Tensor = mm(self.values, x_t, *self._pattern())
        if self._tap is not None:
            y_t = _Tap.apply(y_t, x_t, self._tap)
        y = y_t.t()
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def _flat_positions(self) -> Tensor:
        """Index of each active value in the flattened dense weight, (active,)."""
        rows, cols, *_ = self._pattern()
        row = torch.repeat_interleave(
            torch.arange(self.out_features, device=cols.device), rows.long().diff(), output_size=cols.numel()
        )
        return row * self.in_features + cols

    def _scattered(self, values: Tensor) -> Tensor:
        flat = torch.zeros(self.weight_shape.numel(), dtype=values.dtype, device=values.device)
        return flat.index_put((self._flat_positions(),), values).view(self.weight_shape)

    def active_mask(self) -> Tensor:
        return self._scattered(torch.ones_like(self.values, dtype=torch.bool))

    @torch.no_grad()
    def dense_weight(self) -> Tensor:
        return self._scattered(self.values.detach())

    @torch.no_grad()
    def set_active(self, values: Tensor) -> None:
        if values.numel() != self.values.numel():
            raise BadValue(f"the layer has {self.values.numel():,} active weights, got {values.numel():,} values")
        self.values.copy_(values.reshape(-1))

    @contextmanager
    def tapped(self) -> Iterator[Tensor]:
        # Expanded from one zero: the leaf lends its shape to the gradient and is never read.
        zero = torch.zeros((), dtype=self.values.dtype, device=self.values.device)
        self._tap = zero.expand(self.weight_shape).requires_grad_()
        try:
            yield self._tap
        finally:
            self._tap = None

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[prefix + "values"]
        destination[prefix + "weight"] = self.dense_weight()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = prefix + "weight"
        rest = {key: value for key, value in state_dict.items() if key != name}
        if name in state_dict:
            rest[prefix + "values"] = self._values_of(state_dict[name], name, error_msgs)
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        if prefix + "values" in missing_keys:
            missing_keys[missing_keys.index(prefix + "values")] = name

    def _values_of(self, weight: Tensor, name: str, error_msgs: list[str]) -> Tensor:
        """The active values of a dense weight; the present ones, with a message, if it does not fit the mask."""
        if weight.shape != self.weight_shape:
            error_msgs.append(
                f"{name} has shape {tuple(weight.shape)}, the layer stands for {tuple(self.weight_shape)}"
            )
            return self.values.detach()
        flat = weight.detach().reshape(-1).to(self.values.device)
        values = flat[self._flat_positions()]
        outside = int((flat != 0).sum() - (values != 0).sum())
        if outside:
            error_msgs.append(
                f"{name} has {outside:,} nonzero weights where the mask has none; multiply it by the mask"
            )
            return self.values.detach()
        return values

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, active={self.values.numel()}, "
            f"bias={self.bias is not None}"
        )


_PATTERN = ("rows", "cols", "rows_t", "cols_t", "order_t")


class _Tap(torch.autograd.Function):
    """The identity on y whose backward also gives `leaf` the dense gradient g x^T; first order only."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, leaf: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return y.view_as(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, Tensor]:
        (x,) = ctx.saved_tensors
        return g, None, g @ x.t()
