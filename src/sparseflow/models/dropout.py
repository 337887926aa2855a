"""Dropout whose draw depends on the shape of its input alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, except that which units are dropped does not depend on the memory layout of the input.

    torch draws in the order of memory, and a compact layer hands its output on feature-major: masked and compact
    execution would drop different units.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        kept = torch.empty(x.shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        return x * kept.div_(1.0 - self.p)
