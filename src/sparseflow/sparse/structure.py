"""The pattern of a sparse weight, in the forms that the products need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseflow.core import BadValue


@dataclass(frozen=True)
class Structure:
    """Rows and columns of the active weights of one (out, in) weight: CSR of the weight and of its transpose.

    The value order is the row-major order of the mask. `order_t[k]` says where in that order the k-th value of the
    transposed matrix stands. Indices are 32-bit: torch's kernels take them as they are, at half the memory.
    """

    shape: tuple[int, int]
    rows: Tensor  # (out + 1,) start of each output's values
    cols: Tensor  # (active,) input index of each value
    rows_t: Tensor  # (in + 1,) start of each input's values in the transpose
    cols_t: Tensor  # (active,) output index of each value of the transpose
    order_t: Tensor  # (active,)

    @classmethod
    def of(cls, mask: Tensor) -> Structure:
        """The structure of a bool mask of shape (out, in).

        Raises:
            BadValue: if the mask is not a two-dimensional bool tensor.
        """
        if mask.dtype is not torch.bool or mask.dim() != 2:
            raise BadValue(f"a structure needs a bool mask (out, in), got {mask.dtype} of shape {tuple(mask.shape)}")
        out_features, in_features = mask.shape
        rows, cols = mask.nonzero(as_tuple=True)
        # A stable sort by column keeps rows ascending within each column: the row-major order of the transpose.
        order_t = torch.argsort(cols, stable=True)
        return cls(
            (out_features, in_features),
            _starts(rows, out_features),
            cols.int(),
            _starts(cols, in_features),
            rows[order_t].int(),
            order_t.int(),
        )

    @property
    def active(self) -> int:
        return self.cols.numel()

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.rows, self.cols, self.rows_t, self.cols_t, self.order_t


def _starts(index: Tensor, size: int) -> Tensor:
    counts = torch.bincount(index, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
