"""The Hodges-Lehmann difference with the interval of the inverted signed-rank test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue
from sparseflow.stats.arrays import paired_differences
from sparseflow.stats.signed_ranks import ZeroRule, check_exact_size, check_zero_rule, null_counts


@dataclass(frozen=True)
class Estimate:
    """A difference in the unit of the data, with the closed two-sided interval [low, high].

    Attributes:
        estimate, low, high: low and high are -inf and inf where the pairs are too few for the confidence asked.
        confidence: as asked.
        confidence_reached: at least `confidence`; 1.0 for the infinite interval.
        pairs: differences given.
        used: differences that entered (fewer than `pairs` only under the zero rule "drop").
        zero_rule: as asked.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    confidence_reached: float
    pairs: int
    used: int
    zero_rule: ZeroRule


def hodges_lehmann(
    differences: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    zeros: ZeroRule = "pratt",
    resolution: float | None = None,
) -> Estimate:
    """Median of the Walsh averages (d_i + d_j) / 2, i <= j; Hodges & Lehmann 1963, Ann. Math. Statist. 34:598-611.

    The interval holds the shifts that the exact two-sided signed-rank test at level 1 - confidence does not reject:
    between two order statistics of the Walsh averages, the outermost ones whose confidence is still enough. For
    continuous differences the confidence reached is exact; with ties the closed interval covers at least as often
    (Noether 1967, JASA 62:184-188), but need not agree to the last pair with the tie-conditional test of `wilcoxon`.

    With too few pairs no finite interval has the confidence asked (2^(1 - n) > 1 - confidence: fewer than 6 pairs for
    95 %); then low = -inf, high = inf and confidence_reached = 1.0.

    Args:
        differences: shape (pairs,), finite, at most 500.
        confidence: in (0, 1).
        zeros: "pratt" keeps zeros, which are differences like any other once the shift moves; "drop" removes them
            first, as a test that drops them does (if nothing is left: estimate 0 and an infinite interval).
        resolution: rounds the differences to its multiples, see `wilcoxon`.

    Raises:
        BadValue: no differences, too many, NaN or infinite ones, a confidence outside (0, 1), a resolution <= 0.
        UnknownName: another zero rule.
    """
    check_zero_rule(zeros)
    if not 0.0 < confidence < 1.0:
        raise BadValue(f"confidence must be in (0, 1), got {confidence:g}")
    d = paired_differences(differences, resolution)
    pairs = d.size
    check_exact_size(pairs)
    if zeros == "drop":
        d = d[d != 0]
    i, j = np.triu_indices(d.size)
    walsh = np.sort((d[i] + d[j]) / 2)
    estimate = float(np.median(walsh)) if d.size else 0.0
    low, high, reached = -math.inf, math.inf, 1.0
    rejected, reached_exactly = _rejected_sums(d.size, confidence)
    if rejected:
        low, high, reached = float(walsh[rejected - 1]), float(walsh[-rejected]), reached_exactly
    return Estimate(estimate, low, high, confidence, reached, pairs, d.size, zeros)


def _rejected_sums(n: int, confidence: float) -> tuple[int, float]:
    """The largest k with 1 - 2 P(W+ < k) >= confidence for n untied pairs, and that probability; k = 0 if none.

    W+ of the differences less a shift is the number of Walsh averages above that shift, so the k smallest sums rejected
    on either side leave the shifts between the k-th smallest and the k-th largest Walsh average.
    """
    needed = Fraction(confidence)
    best = (0, 1.0)
    for k, below in enumerate(accumulate(null_counts(range(1, n + 1))), start=1):
        covered = 1 - Fraction(2 * below, 1 << n)
        if covered < needed:
            break
        best = (k, float(covered))
    return best
