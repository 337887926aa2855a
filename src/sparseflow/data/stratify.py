"""Stratified sampling: a sample whose class counts are those of the whole, scaled down and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseflow.core import BadValue, stream


def class_counts(counts: Tensor, n: int) -> Tensor:
    """Share `n` draws among classes with `counts` members (int64) in proportion, by largest remainder.

    Integer arithmetic throughout, so the total is `n` exactly and no class exceeds its members; equal remainders go
    to the lower class.
    """
    total = int(counts.sum())
    scaled = counts * n
    share = scaled // total
    left = n - int(share.sum())
    by_remainder = torch.argsort(scaled % total, descending=True, stable=True)
    share[by_remainder[:left]] += 1
    return share


def stratified(y: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Indices of `n` items with labels `y` (N,), each class in its proportional share; sorted, int64, on the CPU.

    One permutation of all N items is drawn whatever `n` is, and each class gives its first ones: a smaller sample
    with the same generator state is contained in a larger one wherever its class counts are no larger.

    Raises:
        BadValue: if `n` is not in [0, N].
    """
    labels = y.cpu()
    if not 0 <= n <= len(labels):
        raise BadValue(f"cannot take {n} of {len(labels)} items")
    if n == 0:
        return torch.empty(0, dtype=torch.int64)
    _, classes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.argsort(classes[order], stable=True)]
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(labels)) - first.repeat_interleave(counts)
    taken = order[rank < class_counts(counts, n).repeat_interleave(counts)]
    return taken.sort().values


def complement(indices: Tensor, n: int) -> Tensor:
    """The indices in range(n) that are not among `indices`, ascending."""
    keep = torch.ones(n, dtype=torch.bool)
    keep[indices] = False
    return keep.nonzero().flatten()


def fixed_split(y: Tensor) -> tuple[Tensor, Tensor]:
    """(train, test) indices of a stratified 80/20 split, for data that comes without a test set.

    The stream has a fixed seed: a test set that moved with the run's seed would let one run train on what another is
    tested on, and paired comparisons over seeds would mix the noise of the split with that of the method.
    """
    test = stratified(y, len(y) - 4 * len(y) // 5, stream(0, "split"))
    return complement(test, len(y)), test
