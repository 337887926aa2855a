"""Ranks of |differences| and the exact null distribution of their signed sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue, UnknownName
from sparseflow.stats.arrays import Floats

ZeroRule = Literal["pratt", "drop"]
ZERO_RULES = ("pratt", "drop")
EXACT_PAIRS = 500


@dataclass(frozen=True)
class SignedRanks:
    """Nonzero differences as doubled mid-ranks of shape (used,): integers, since a mid-rank is a multiple of 1/2."""

    doubled: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    zeros: int

    @property
    def used(self) -> int:
        return self.doubled.size

    @property
    def doubled_statistic(self) -> int:
        """2 W+."""
        return int(self.doubled[self.positive].sum())


def check_zero_rule(zeros: str) -> None:
    """Raises UnknownName unless `zeros` names a rule."""
    if zeros not in ZERO_RULES:
        raise UnknownName("zero rule", zeros, ZERO_RULES)


def check_exact_size(pairs: int) -> None:
    """Raises BadValue for more pairs than the exact distribution is meant for (at the limit it takes seconds)."""
    if pairs > EXACT_PAIRS:
        raise BadValue(
            f"the exact signed-rank distribution takes at most {EXACT_PAIRS} pairs, got {pairs}; "
            'wilcoxon has method="normal" for more'
        )


def signed_ranks(differences: Floats, zeros: ZeroRule) -> SignedRanks:
    """Mid-ranks of |d|, shape (n,) -> (used,). Pratt 1959: zeros take up the lowest ranks and are dropped afterwards.

    Two |d| are tied if and only if they are equal as floats.
    """
    from scipy.stats import rankdata  # half a second to import, which a worker that trains need not pay

    nonzero = differences != 0
    kept = differences if zeros == "pratt" else differences[nonzero]
    doubled = np.rint(2 * rankdata(np.abs(kept))).astype(np.int64)[kept != 0]
    return SignedRanks(doubled, differences[nonzero] > 0, int((~nonzero).sum()))


def null_counts(ranks: Sequence[int]) -> list[int]:
    """How many of the 2^m sign patterns give each sum s = 0 ... sum(ranks) of the positive ranks; exact integers.

    The counts are the coefficients of prod_r (1 + x^r). All of them sit side by side in one big integer, x being a
    shift by one slot, so that a factor is one shift and one addition; no count exceeds 2^m, so slots of more than m
    bits never carry into each other.
    """
    slot = len(ranks) // 8 + 1  # bytes
    packed = 1
    for rank in sorted(ranks):  # small ones first keep the integer short for longest
        packed += packed << (8 * slot * rank)
    raw = packed.to_bytes(slot * (sum(ranks) + 1), "little")
    return [int.from_bytes(raw[at : at + slot], "little") for at in range(0, len(raw), slot)]
