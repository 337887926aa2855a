"""The dense gradient of a weight over the backward passes of one optimiser step, masked entries included."""

from __future__ import annotations

import torch
from torch import Tensor


class Gradient:
    """Collects what `.grad` loses when it is masked.

    A first backward pass after the gradients were cleared begins anew, so that a step which GradScaler skips leaves
    nothing behind: `.grad` is then another tensor, or was written to since.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self._grad: Tensor | None = None
        self._version = -1

    def take_masked(self, grad: Tensor, mask: Tensor) -> None:
        """Take `.grad` of a masked layer before it is masked: its active entries are sums already."""
        new = grad.detach().clone()
        if self.total is not None and not self._begins(grad):
            new += self.total.masked_fill(mask, 0.0)
        self.total = new

    def add(self, grad: Tensor, dense: Tensor) -> None:
        """Add the dense gradient of a compact layer; `grad` is that of its values."""
        self.total = dense if self.total is None or self._begins(grad) else self.total + dense

    def _begins(self, grad: Tensor) -> bool:
        # Accumulation itself writes once.
        return grad is not self._grad or grad._version > self._version + 1

    def note(self, grad: Tensor) -> None:
        """Remember `.grad` as this pass leaves it."""
        self._grad, self._version = grad, grad._version

    def reduced(self) -> Tensor | None:
        """The mean over all processes, which then grow the same weights; None if no backward pass came by."""
        if self.total is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.total
        torch.distributed.all_reduce(self.total)
        return self.total.div_(torch.distributed.get_world_size())
