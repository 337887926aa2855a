"""Exact selection: as many weights as the budget says, by rank and never by threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseflow.core import BadValue


def random_subset(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """A bool mask of `shape` with exactly `count` entries True, each such mask equally likely.

    Raises:
        BadValue: if `count` is negative or exceeds the number of entries.
    """
    total = shape.numel()
    if not 0 <= count <= total:
        raise BadValue(f"cannot choose {count:,} of {total:,} weights (shape {tuple(shape)})")
    mask = torch.zeros(total, dtype=torch.bool)
    # Draw the smaller of the two sets; the first `count` of a random permutation are a uniform subset.
    few = min(count, total - count)
    # 32 bits where they suffice draw the same permutation in half the memory.
    dtype = torch.int32 if total < 2**31 else torch.int64
    mask[torch.randperm(total, generator=generator, dtype=dtype)[:few]] = True
    return (mask if few == count else ~mask).view(shape)
