"""The pattern of a sparse weight, and the one order in which its active values are kept."""

from __future__ import annotations

from dataclasses import dataclass

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
        ins, outs = flat.t().nonzero(as_tuple=True)
        return cls._of(ins, outs, (flat.shape[0], flat.shape[1]))

    @classmethod
    def of_keys(cls, keys: Tensor, shape: tuple[int, int]) -> Structure:
        """From keys `in * out_features + out`, int64, rising."""
        return cls._of(keys // shape[0], keys % shape[0], shape)

    @classmethod
    def _of(cls, ins: Tensor, outs: Tensor, shape: tuple[int, int]) -> Structure:
        if ins.numel() > MOST_VALUES:
            raise BadValue(f"a compact layer holds at most {MOST_VALUES:,} active weights, got {ins.numel():,}")
        counts = torch.bincount(ins, minlength=shape[1])
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        return cls(shape, starts, outs.int())

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
        return self.outs.long() * self.shape[1] + self.ins()

    def by_row(self) -> Tensor:
        """Row-major index, among the active weights, of each value: values = row_major_values[by_row()]."""
        rank = torch.empty(self.active, dtype=torch.int64, device=self.outs.device)
        order = self.flat().argsort()
        rank[order] = torch.arange(self.active, device=self.outs.device)
        return rank
