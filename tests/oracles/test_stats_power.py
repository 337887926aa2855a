"""Planned numbers of pairs against simulation with the exact test's own rejection region."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from sparseflow.core import BadValue
from sparseflow.stats import detectable_effect, pairs_needed, signed_rank_power, smallest_p, wilcoxon

SAMPLES = 20_000  # standard error at most 0.0036


def with_sum(n, total):
    """n untied differences with W+ = total."""
    d = []
    for rank in range(n, 0, -1):
        d.append(rank if rank <= total else -rank)
        total -= max(0, d[-1])
    return d


def critical_sum(n, alpha):
    """The smallest W+ with p <= alpha, by bisection over the test itself."""
    accepted, rejected = -1, n * (n + 1) // 2
    while rejected - accepted > 1:
        middle = (accepted + rejected) // 2
        result = wilcoxon(with_sum(n, middle))
        assert result.statistic == middle
        accepted, rejected = (accepted, middle) if result.p_value <= alpha else (middle, rejected)
    return rejected


def simulated(n, effect, alpha):
    d = np.random.default_rng(n).standard_normal((SAMPLES, n)) + effect
    ranks = np.argsort(np.argsort(np.abs(d), axis=1), axis=1) + 1
    return float(((ranks * (d > 0)).sum(axis=1) >= critical_sum(n, alpha)).mean())


def noether(effect, alpha, power):
    return (ndtri(1 - alpha) + ndtri(power)) ** 2 / (3 * (ndtr(effect * math.sqrt(2)) - 0.5) ** 2)


@pytest.mark.parametrize(
    ("n", "effect", "alpha"),
    [
        (5, 1.0, 0.05),
        (9, 1.0, 0.05),
        (15, 0.7, 0.05),
        (15, 1.0, 0.01),
        (30, 0.5, 0.05),
        (50, 0.4, 0.05),
        (60, 0.3, 0.05),
    ],
)
def test_power_is_the_simulated_power(n, effect, alpha):
    assert signed_rank_power(n, effect, alpha=alpha) == pytest.approx(simulated(n, effect, alpha), abs=0.011)


@pytest.mark.parametrize("power", [0.8, 0.9])
@pytest.mark.parametrize("effect", [0.3, 0.5, 1.0])
def test_pairs_needed_reach_their_power_and_fewer_do_not(effect, power):
    n = pairs_needed(effect, power=power)
    assert power - 0.012 <= simulated(n, effect, 0.05) <= power + 0.06
    assert simulated(n - 1, effect, 0.05) < power + 0.012


@pytest.mark.parametrize("n", [5, 8, 15, 40])
def test_without_an_effect_power_is_the_level_reached(n):
    """Up to 40 pairs: a multiple of 2^-n, the null probability of the rejection region, at most alpha."""
    critical = critical_sum(n, 0.05)
    sums = np.zeros(1)
    sums[0] = 1.0
    for rank in range(1, n + 1):
        sums = np.append(sums, np.zeros(rank)) / 2 + np.append(np.zeros(rank), sums) / 2
    assert signed_rank_power(n, 0.0) == pytest.approx(sums[critical:].sum(), abs=1e-4)


@pytest.mark.parametrize("n", [41, 60, 1000])
def test_without_an_effect_the_approximation_gives_alpha_itself(n):
    """So its variance of W+ at effect 0 is the null variance, to the last term."""
    assert signed_rank_power(n, 0.0, alpha=0.05) == pytest.approx(0.05, abs=1e-9)


def test_one_rejected_pattern_has_a_closed_form():
    """5 pairs at 5 %: only five wins of five reject, with probability Phi(effect)^5."""
    for effect in (0.2, 1.0, 3.0, 20.0):
        assert signed_rank_power(5, effect) == pytest.approx(ndtr(effect) ** 5, abs=1e-4)


def test_small_effects_need_noethers_number():
    for effect in (0.01, 0.03):
        assert pairs_needed(effect) == pytest.approx(noether(effect, 0.05, 0.8), rel=0.005)
    assert pairs_needed(1.0) == 9 < math.ceil(noether(1.0, 0.05, 0.8)) == 12


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01, 1e-6])
def test_never_fewer_than_the_smallest_p_needs(alpha):
    n = pairs_needed(100.0, alpha=alpha)
    assert smallest_p(n) <= alpha < smallest_p(n - 1)
    assert detectable_effect(n - 1, alpha=alpha) == math.inf
    assert signed_rank_power(n - 1, 100.0, alpha=alpha) == 0.0


@pytest.mark.parametrize("pairs", [5, 9, 15, 30, 41, 60, 1000])
def test_detectable_effect_is_the_inverse(pairs):
    effect = detectable_effect(pairs)
    assert signed_rank_power(pairs, effect) == pytest.approx(0.8, abs=1e-6)
    assert pairs_needed(effect * (1 + 1e-6)) <= pairs < pairs_needed(effect * 0.9)


def test_more_power_less_alpha_and_smaller_effects_need_more():
    assert pairs_needed(0.5) < pairs_needed(0.5, power=0.95) < pairs_needed(0.5, power=0.95, alpha=0.001)
    needs = [pairs_needed(e) for e in (2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.01)]
    assert needs == sorted(needs)
    assert len(set(needs)) == len(needs)
    assert pairs_needed(0.3, alpha=0.4, power=0.5) < 10


def test_bad_input_is_named():
    for effect in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(BadValue, match="effect must be positive"):
            pairs_needed(effect)
    with pytest.raises(BadValue, match="1e\\+12 pairs"):
        pairs_needed(1e-9)
    with pytest.raises(BadValue, match="alpha must be"):
        pairs_needed(0.5, alpha=0.0)
    with pytest.raises(BadValue, match="power must be above alpha"):
        pairs_needed(0.5, alpha=0.9)
    with pytest.raises(BadValue, match="power must be above alpha"):
        detectable_effect(10, power=1.0)
    with pytest.raises(BadValue, match="pairs must be at least 1"):
        detectable_effect(0)
    with pytest.raises(BadValue, match="pairs must be at least 1"):
        signed_rank_power(0, 1.0)
    with pytest.raises(BadValue, match="effect must be at least 0"):
        signed_rank_power(10, -1.0)
    with pytest.raises(BadValue, match="alpha must be"):
        signed_rank_power(10, 1.0, alpha=1.0)
