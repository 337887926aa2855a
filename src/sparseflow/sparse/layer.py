"""What layers share whose only weight parameter is the vector of active values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, StandsForWeight
from sparseflow.sparse.kernel import Kernel, register
from sparseflow.sparse.products import mm
from sparseflow.sparse.structure import Structure


class CompactLayer(nn.Module, StandsForWeight):
    """A layer that holds, multiplies, differentiates and updates its active weights only.

    `state_dict` emits the dense `weight` that the layer stands for and accepts one, so checkpoints are those of the
    layer it replaced. Under autocast the product runs in the values' own precision.

    Args:
        mask: bool, of the dense weight's shape.
        bias: the bias parameter of the layer it replaces, or None.
        dtype, device: of the values, which start at 0.
    """

    values: nn.Parameter
    """(active,), ordered as its `Structure` says."""
    starts: Tensor
    outs: Tensor
    _handle: Tensor | None = None

    def __init__(self, mask: Tensor, bias: nn.Parameter | None, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        structure = Structure.of(mask.to(device))
        self.weight_shape = mask.shape
        # Not persistent: the pattern is the mask's, which stands beside the model, and not a part of its state.
        self.register_buffer("starts", structure.starts, persistent=False)
        self.register_buffer("outs", structure.outs, persistent=False)
        self.values = nn.Parameter(torch.zeros(structure.active, dtype=dtype, device=device))
        self.bias = bias
        self._tap: Tensor | None = None
        self._settle()

    @abstractmethod
    def _make_kernel(self) -> Kernel: ...

    @property
    def structure(self) -> Structure:
        out_features = self.weight_shape[0]
        return Structure((out_features, self.weight_shape[1:].numel()), self.starts, self.outs)

    def _settle(self) -> None:
        """Make the kernel of the present structure, on its device."""
        self._kernel = self._make_kernel()
        number = register(self._kernel)
        if self._handle is None:
            self._handle = number
        else:
            self._handle.copy_(number)  # in place: a graph that was recorded with the old structure must not go on

    def _product(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """W x + b of a batch-last input, of the given shape."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._product(x, shape)
        y: Tensor = mm(self.values, x, self.bias, self._handle, shape)
        return y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompactLayer:
        before = self.outs.device
        super()._apply(fn, recurse)
        if self.outs.device != before:
            self._settle()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A kernel's number means nothing in another process, and two layers must not share a handle.
        return {k: v for k, v in super().__getstate__().items() if k not in ("_kernel", "_handle")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._settle()

    def _scattered(self, values: Tensor) -> Tensor:
        flat = torch.zeros(self.weight_shape.numel(), dtype=values.dtype, device=values.device)
        return flat.index_put((self.structure.flat(),), values).view(self.weight_shape)

    def active_mask(self) -> Tensor:
        return self._scattered(torch.ones_like(self.values, dtype=torch.bool))

    def has_mask(self, mask: Tensor) -> bool:
        if mask.shape != self.weight_shape or int(mask.count_nonzero()) != self.values.numel():
            return False
        return bool(mask.to(self.outs.device).reshape(-1)[self.structure.flat()].all())

    @torch.no_grad()
    def dense_weight(self) -> Tensor:
        return self._scattered(self.values.detach())

    @torch.no_grad()
    def set_active(self, values: Tensor) -> None:
        if values.numel() != self.values.numel():
            raise BadValue(f"the layer has {self.values.numel():,} active weights, got {values.numel():,} values")
        self.values[self.structure.by_row()] = values.reshape(-1).to(self.values)

    @torch.no_grad()
    def rewire_(self, drop: Tensor, grow: Tensor) -> Tensor:
        """Replace active weights: what is dropped is gone, what is grown starts at 0; see `Structure.rewired`.

        Args:
            drop: indices of `values`, int64.
            grow: indices in the flattened dense weight, int64.

        Returns:
            For each of the new values its index among the old ones, -1 for a grown one: how an optimiser's state of
            `values` moves. The parameter stays the same object; its gradient is dropped.
        """
        structure, source = self.structure.rewired(drop.to(self.outs.device), grow.to(self.outs.device))
        moved = self.values.detach()[source.clamp(min=0)] if self.values.numel() else self.values.new_zeros(len(source))
        self.values.grad = None
        self.values.data = moved.masked_fill_(source < 0, 0.0)
        self.starts, self.outs = structure.starts, structure.outs
        self._settle()
        return source

    def row_major(self) -> tuple[Tensor, Tensor]:
        structure = self.structure
        order = structure.by_row()
        return order, structure.flat()[order]

    @contextmanager
    def tapped(self) -> Iterator[Tensor]:
        # Expanded from one zero: the leaf lends its shape to the gradient and is never read.
        zero = torch.zeros((), dtype=self.values.dtype, device=self.values.device)
        outer, self._tap = self._tap, zero.expand(self.weight_shape).requires_grad_()
        try:
            yield self._tap
        finally:
            self._tap = outer

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
        values = flat[self.structure.flat()]
        outside = int((flat != 0).sum() - (values != 0).sum())
        if outside:
            error_msgs.append(
                f"{name} has {outside:,} nonzero weights where the mask has none; multiply it by the mask"
            )
            return self.values.detach()
        return values


class Tap(torch.autograd.Function):
    """The identity on y whose backward also gives `leaf` the dense weight's gradient; first order only.

    `gradient(g, x)` computes it from y's gradient and the layer's input.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, leaf: Tensor, gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        return y.view_as(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (x,) = ctx.saved_tensors
        return g, None, ctx.gradient(g, x), None
