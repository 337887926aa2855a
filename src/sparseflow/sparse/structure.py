"""The pattern of a sparse weight, and the one order in which its active values are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseflow.core import BadValue

MOST_VALUES = 2**31 - 2
"""Active weights of one layer: indices have 32 bits."""


@dataclass(frozen=True)
class Structure:
    """Where the active weights of one weight stand, the weight seen as a matrix (out, in).

    A convolution's (out, in, kh, kw) is the matrix (out, in * kh * kw). Values are ordered by input, then by output:
    the row-major order of the transpose, which the mask alone determines and the fused backward pass reads in sequence.
    """

    shape: tuple[int, int]
    starts: Tensor
    """(in + 1,) int32: where each input's values begin."""
    outs: Tensor
    """(active,) int32: the output of each value, rising within an input."""

    @classmethod
    def of(cls, mask: Tensor) -> Structure:
        """The structure of a bool mask (out, in) or (out, in, kh, kw).

        Raises:
            BadValue: if the mask is not a bool tensor of at least two dimensions, or too large.
        """
        if mask.dtype is not torch.bool or mask.dim() < 2:
            raise BadValue(f"a structure needs a bool mask (out, in, ...), got {mask.dtype} of {tuple(mask.shape)}")
        flat = mask.flatten(1)
        return cls.of_keys(flat.t().flatten().nonzero().squeeze(1), (flat.shape[0], flat.shape[1]))

    @classmethod
    def of_keys(cls, keys: Tensor, shape: tuple[int, int]) -> Structure:
        """From keys `in * out_features + out`, int64, rising."""
        if keys.numel() > MOST_VALUES:
            raise BadValue(f"a compact layer holds at most {MOST_VALUES:,} active weights, got {keys.numel():,}")
        firsts = torch.arange(shape[1] + 1, device=keys.device) * shape[0]
        return cls(shape, torch.searchsorted(keys, firsts).int(), (keys % shape[0]).int())

    def rewired(self, drop: Tensor, grow: Tensor) -> tuple[Structure, Tensor]:
        """The structure without some of its weights and with others, by a merge: nothing dense is made.

        Args:
            drop: indices of values, int64.
            grow: indices in the flattened dense weight, int64; none that stays active.

        Returns:
            The new structure, and for each of its values the index among the old ones, -1 for a grown one.

        Raises:
            BadValue: for an index that is out of range or twice there, or a weight grown where one stays.
        """
        _check_indices("drop", drop, self.active)
        _check_indices("grow", grow, self.shape[0] * self.shape[1])
        stays = torch.ones(self.active, dtype=torch.bool, device=self.outs.device)
        stays[drop] = False
        if int(stays.count_nonzero()) != self.active - drop.numel():
            raise BadValue("drop names a weight twice")
        stay = stays.nonzero().squeeze(1)
        grown = (grow % self.shape[1] * self.shape[0] + grow // self.shape[1]).sort().values
        keys = torch.cat([self.keys()[stay], grown])
        order = _merging_order(keys)
        keys = keys[order]
        source = torch.cat([stay, torch.full_like(grown, -1)])[order]
        twice = (keys.diff() == 0).nonzero().squeeze(1)
        if twice.numel():
            both_grown = bool((torch.maximum(source[twice], source[twice + 1]) < 0).any())
            raise BadValue("grow names a weight twice" if both_grown else "a weight to grow is active already")
        return Structure.of_keys(keys, self.shape), source

    @property
    def active(self) -> int:
        return self.outs.numel()

    def ins(self) -> Tensor:
        """The input of each value, (active,) int64."""
        every = torch.arange(self.shape[1], device=self.outs.device)
        return torch.repeat_interleave(every, self.starts.long().diff(), output_size=self.active)

    def keys(self) -> Tensor:
        """`in * out_features + out` of each value, (active,) int64, rising: what orders the values."""
        return self.ins() * self.shape[0] + self.outs

    def flat(self) -> Tensor:
        """Index of each value in the flattened dense weight, (active,) int64."""
        return self.outs.long().mul_(self.shape[1]).add_(self.ins())

    def by_row(self) -> Tensor:
        """Which value stands at each row-major place of the active weights: row_major = values[by_row()]."""
        return torch.argsort(self.outs, stable=True)


def _merging_order(keys: Tensor) -> Tensor:
    """The order that sorts keys which consist of two rising runs."""
    if keys.device.type == "cpu":
        # numpy's stable sort finds the runs and merges them, in a third of the time of torch's.
        return torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
    return torch.argsort(keys, stable=True)


def _check_indices(name: str, index: Tensor, size: int) -> None:
    if index.dtype is not torch.int64 or index.dim() != 1:
        raise BadValue(f"{name} must be a flat int64 tensor, got {index.dtype} of shape {tuple(index.shape)}")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise BadValue(f"{name} must lie in [0, {size:,}), got {int(index.min()):,} to {int(index.max()):,}")
