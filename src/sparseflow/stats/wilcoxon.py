"""The paired Wilcoxon signed-rank test: exact under ties and zeros, or the normal approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from sparseflow.core import UnknownName, check_positive
from sparseflow.stats.arrays import paired_differences
from sparseflow.stats.signed_ranks import (
    SignedRanks,
    ZeroRule,
    check_exact_size,
    check_zero_rule,
    null_counts,
    signed_ranks,
)

Alternative = Literal["greater", "less", "two-sided"]
Method = Literal["exact", "normal"]
ALTERNATIVES = ("greater", "less", "two-sided")
METHODS = ("exact", "normal")


@dataclass(frozen=True)
class WilcoxonResult:
    """Outcome of one signed-rank test.

    Attributes:
        statistic: W+, the sum of the ranks of positive differences.
        p_value: in (0, 1].
        pairs: differences given.
        used: nonzero differences, those whose signs make up the distribution.
        zeros: differences equal to zero; pairs = used + zeros.
        ties: whether any two nonzero |differences| are equal.
        smallest_p: the smallest exact p that this many pairs can reach, without zeros (see `smallest_p`).
        alternative, method, zero_rule: as asked.
    """

    statistic: float
    p_value: float
    pairs: int
    used: int
    zeros: int
    ties: bool
    smallest_p: float
    alternative: Alternative
    method: Method
    zero_rule: ZeroRule


def wilcoxon(
    differences: npt.ArrayLike,
    *,
    alternative: Alternative = "greater",
    zeros: ZeroRule = "pratt",
    method: Method = "exact",
    resolution: float | None = None,
) -> WilcoxonResult:
    """Wilcoxon 1945, Biometrics Bulletin 1(6):80-83, on paired differences (sparse minus dense), shape (pairs,).

    H0: the differences are symmetric about zero. The default alternative: they are greater (the sparse network wins).

    Args:
        differences: finite numbers in any unit, e.g. accuracies in [0, 1].
        zeros: "pratt" (Pratt 1959, JASA 54:655-667) ranks zeros with the others and then leaves them out of the sums;
            "drop" (Wilcoxon) removes them before ranking.
        method: "exact" gives every sign pattern of the nonzero differences the same probability, with the observed
            mid-ranks fixed: right under ties and zeros, for up to 500 pairs. "normal" is the large-sample
            approximation with the variance corrected for ties and zeros (Cureton 1967) and no continuity correction:
            that of `scipy.stats.wilcoxon(..., correction=False)`, and of the papers' printed cells.
        resolution: if given, differences are first rounded to its multiples. By default two |differences| are tied
            only if they are equal as floats. Accuracies are multiples of 1 / test images, but 0.3 - 0.2 and 0.2 - 0.1
            differ in the last bit, which breaks a tie by rounding error alone; 1 / test images mends that.

    All differences zero: p = 1.

    Raises:
        BadValue: no differences, NaN or infinite ones, a resolution <= 0, too many pairs for "exact".
        UnknownName: another alternative, zero rule or method.
    """
    if alternative not in ALTERNATIVES:
        raise UnknownName("alternative", alternative, ALTERNATIVES)
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    check_zero_rule(zeros)
    d = paired_differences(differences, resolution)
    if method == "exact":
        check_exact_size(d.size)
    ranks = signed_ranks(d, zeros)
    if ranks.used == 0:
        p_value = 1.0
    elif method == "exact":
        p_value = _exact_p(ranks, alternative)
    else:
        p_value = _normal_p(ranks, alternative)
    return WilcoxonResult(
        statistic=ranks.doubled_statistic / 2,
        p_value=p_value,
        pairs=d.size,
        used=ranks.used,
        zeros=ranks.zeros,
        ties=np.unique(ranks.doubled).size < ranks.used,
        smallest_p=smallest_p(d.size, alternative),
        alternative=alternative,
        method=method,
        zero_rule=zeros,
    )


def smallest_p(pairs: int, alternative: Alternative = "greater") -> float:
    """The smallest p that the exact test can reach: 2^-pairs, when all signs agree; twice that if two-sided.

    Raises:
        BadValue: pairs < 1.
        UnknownName: another alternative.
    """
    if alternative not in ALTERNATIVES:
        raise UnknownName("alternative", alternative, ALTERNATIVES)
    patterns = 2 if alternative == "two-sided" else 1
    return math.ldexp(patterns, -check_positive("pairs", pairs))


def _exact_p(ranks: SignedRanks, alternative: Alternative) -> float:
    counts = null_counts(ranks.doubled.tolist())
    observed = ranks.doubled_statistic
    greater, less = sum(counts[observed:]), sum(counts[: observed + 1])
    # The distribution is symmetric, so twice the smaller tail is P(|W+ - mean| >= observed), unless both tails meet.
    tail = {"greater": greater, "less": less, "two-sided": 2 * min(greater, less)}[alternative]
    patterns = 1 << ranks.used
    return min(tail, patterns) / patterns


def _normal_p(ranks: SignedRanks, alternative: Alternative) -> float:
    # Given the ranks r, W+ has mean sum(r) / 2 and variance sum(r^2) / 4; with mid-ranks these are exactly the textbook
    # formulas with their corrections for ties and for Pratt's zeros.
    r = ranks.doubled / 2
    z = (ranks.doubled_statistic / 2 - r.sum() / 2) / math.sqrt((r**2).sum() / 4)
    tail = {"greater": ndtr(-z), "less": ndtr(z), "two-sided": 2 * ndtr(-abs(z))}[alternative]
    return float(tail)
