"""How many pairs the one-sided signed-rank test needs, and what a number of pairs can detect.

Effects are standardized: mean difference / standard deviation of the differences, which are taken as normal.

The usual sample size of Noether 1987 (JASA 82:645-647), N = (z_alpha + z_beta)^2 / (3 (p' - 1/2)^2) with
p' = P(d_i + d_j > 0) = Phi(effect sqrt(2)), uses the null variance under the alternative too: right for small
effects, a third too many pairs at effect 1 (12 where 9 are enough). Pairs cost whole trainings, so here the power
itself is computed: exactly up to 40 pairs (a recursion in the manner of Klotz 1963, Ann. Math. Statist. 34:624-632),
and beyond by the normal approximation with the variance of W+ under the alternative (Lehmann 1975, Nonparametrics).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

import numpy as np
from scipy.special import ndtr, ndtri, owens_t

from sparseflow.core import BadValue, check_positive
from sparseflow.stats.signed_ranks import null_counts
from sparseflow.stats.wilcoxon import smallest_p

_EXACT_UP_TO = 40  # pairs; beyond, the approximation is within 0.01 of the truth at the powers one plans for
_MOST_PAIRS = 10**12
_GRID = 801


def signed_rank_power(pairs: int, effect: float, *, alpha: float = 0.05) -> float:
    """Probability that the exact one-sided signed-rank test on `pairs` normal differences has p <= alpha.

    Up to 40 pairs to about four decimals; beyond, to about two. 0.0 if even 2^-pairs exceeds alpha.

    Raises:
        BadValue: pairs < 1, effect < 0 or not finite, alpha outside (0, 1).
    """
    _check_alpha(alpha)
    check_positive("pairs", pairs)
    if not 0 <= effect < math.inf:
        raise BadValue(f"effect must be at least 0 and finite, got {effect:g}")
    return _power(pairs, effect, alpha)


def pairs_needed(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """The smallest number of pairs whose one-sided signed-rank test at level `alpha` has at least this `power`.

    Args:
        effect: mean difference / standard deviation of the differences, > 0.

    Never fewer than the pairs for which smallest_p(pairs) <= alpha. The power is not quite monotone in the pairs,
    since the level that small samples reach jumps; the smallest number is returned nevertheless.

    Raises:
        BadValue: effect <= 0, not finite or too small (more than 10^12 pairs); alpha or power outside (0, 1);
            power <= alpha, which needs no data.
    """
    _check_levels(alpha, power)
    if not 0 < effect < math.inf:
        raise BadValue(f"effect must be positive and finite, got {effect:g}")
    for pairs, reached in enumerate(_exact_powers(effect, alpha, _EXACT_UP_TO), start=1):
        if reached >= power:
            return pairs
    enough = _EXACT_UP_TO + 1
    while _power(enough, effect, alpha) < power:
        enough *= 2
        if enough > _MOST_PAIRS:
            raise BadValue(f"effect must be detectable with at most {_MOST_PAIRS:g} pairs, got {effect:g}")
    too_few = max(_EXACT_UP_TO, enough // 2)
    while enough - too_few > 1:  # the approximation grows with the pairs
        middle = (too_few + enough) // 2
        if _power(middle, effect, alpha) < power:
            too_few = middle
        else:
            enough = middle
    return enough


def detectable_effect(pairs: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest standardized effect that this many pairs detect with this power (the inverse of `pairs_needed`).

    inf if no effect is enough, that is, if smallest_p(pairs) > alpha.

    Raises:
        BadValue: pairs < 1; alpha or power outside (0, 1); power <= alpha.
    """
    from scipy.optimize import brentq  # long imports, which a worker that trains need not pay

    _check_levels(alpha, power)
    if smallest_p(pairs) > alpha:
        return math.inf
    high = 1.0
    while _power(pairs, high, alpha) < power:
        high *= 2
    return float(brentq(lambda effect: _power(pairs, effect, alpha) - power, 0.0, high, xtol=1e-9))


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise BadValue(f"alpha must be in (0, 1), got {alpha:g}")


def _check_levels(alpha: float, power: float) -> None:
    _check_alpha(alpha)
    if not alpha < power < 1.0:
        raise BadValue(f"power must be above alpha ({alpha:g}) and below 1, got {power:g}")


def _power(pairs: int, effect: float, alpha: float) -> float:
    if smallest_p(pairs) > alpha:
        return 0.0
    if pairs > _EXACT_UP_TO:
        return _normal_power(pairs, effect, alpha)
    return list(_exact_powers(effect, alpha, pairs))[-1]


@lru_cache(maxsize=256)
def _critical_sum(pairs: int, alpha: float) -> int:
    """The smallest sum c with P(W+ >= c) <= alpha under H0; one more than the largest sum if there is none."""
    counts = null_counts(range(1, pairs + 1))
    rejected = sum(tail / (1 << pairs) <= alpha for tail in accumulate(reversed(counts)))
    return len(counts) - rejected


def _exact_powers(effect: float, alpha: float, most: int) -> Iterator[float]:
    """Power for 1, 2, ... `most` pairs, from one recursion over the k smallest |d|.

    Let G_k(a, w) be the probability that k differences all have |d| <= a and rank sum W+ = w. Conditioning on the
    largest of them, t, which has rank k and is positive with density phi(t - effect), negative with phi(t + effect):

        G_k(a, w) = k int_0^a [phi(t - effect) G_{k-1}(t, w - k) + phi(t + effect) G_{k-1}(t, w)] dt
    """
    from scipy.integrate import cumulative_trapezoid

    t = np.linspace(max(0.0, effect - 9.0), effect + 9.0, _GRID)
    positive = np.exp(-((t - effect) ** 2) / 2)[:, None]
    negative = np.exp(-((t + effect) ** 2) / 2)[:, None]
    g = np.ones((_GRID, 1))
    for k in range(1, most + 1):
        density = np.zeros((_GRID, g.shape[1] + k))
        density[:, : g.shape[1]] = negative * g
        density[:, k:] += positive * g
        g = cumulative_trapezoid(density, t, axis=0, initial=0)
        total = g[-1].sum()
        g /= total  # instead of k / sqrt(2 pi): the same up to the error of the quadrature, which this takes out
        yield float(g[-1, _critical_sum(k, alpha) :].sum())


def _normal_power(pairs: int, effect: float, alpha: float) -> float:
    """Lehmann 1975: W+ counts the pairs i <= j with d_i + d_j > 0, whose mean and variance are known for normal d."""
    n = float(pairs)
    a = effect * math.sqrt(2)
    one = float(ndtr(effect))  # P(d_i > 0)
    two = float(ndtr(a))  # P(d_i + d_j > 0)
    three = two - 2 * float(owens_t(a, 1 / math.sqrt(3)))  # P(d_i + d_j > 0 and d_i + d_k > 0), correlation 1/2
    both = (one**2 + two) / 2  # P(d_i > 0 and d_i + d_j > 0)
    mean = n * one + n * (n - 1) / 2 * two
    variance = (
        n * one * (1 - one)
        + n * (n - 1) / 2 * two * (1 - two)
        + 2 * n * (n - 1) * (both - one * two)
        + n * (n - 1) * (n - 2) * (three - two**2)
    )
    null_mean, null_variance = n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24
    critical = null_mean + float(ndtri(1 - alpha)) * math.sqrt(null_variance)
    # Where every pair is positive the variance is 0 up to rounding, and the power is 0 or 1.
    return float(ndtr((mean - critical) / math.sqrt(max(variance, 1e-12))))
