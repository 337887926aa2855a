"""The Hodges-Lehmann interval against the shifts that the exact test does not reject, and its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparseflow.core import BadValue, UnknownName
from sparseflow.stats import hodges_lehmann, wilcoxon


def test_by_hand():
    """Walsh averages of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6."""
    found = hodges_lehmann([1, 2, 6], confidence=0.5)
    assert found.estimate == 2.75
    # P(W+ = 0) = 1/8, P(W+ <= 1) = 2/8: rejecting one sum on either side leaves 75 %, two leave 50 %.
    assert (found.low, found.high, found.confidence_reached) == (1.5, 4.0, 0.5)
    wider = hodges_lehmann([1, 2, 6], confidence=0.51)
    assert (wider.low, wider.high, wider.confidence_reached) == (1.0, 6.0, 0.75)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [8, 12, 15])
def test_the_interval_holds_the_shifts_that_the_test_accepts(n, confidence):
    """Scan: one shift inside every gap between Walsh averages, and one beyond either end."""
    d = np.random.default_rng(n).normal(0.5, 1.0, n)
    found = hodges_lehmann(d, confidence=confidence)
    i, j = np.triu_indices(n)
    walsh = np.unique((d[i] + d[j]) / 2)
    shifts = np.concatenate([[walsh[0] - 1], (walsh[1:] + walsh[:-1]) / 2, [walsh[-1] + 1]])
    for shift in shifts:
        rejected = wilcoxon(d - shift, alternative="two-sided").p_value <= 1 - confidence
        assert rejected == (not found.low < shift < found.high)
    assert found.low <= found.estimate <= found.high
    assert {found.low, found.high} <= set(walsh)
    assert found.confidence_reached >= confidence


def test_coverage_by_simulation():
    """Skewed samples would be unfair: the test assumes symmetry. 4,000 samples put the standard error at 0.0035."""
    rng = np.random.default_rng(2)
    true = 0.3
    found = [hodges_lehmann(true + rng.standard_t(3, 10)) for _ in range(4000)]
    covered = np.mean([e.low <= true <= e.high for e in found])
    assert covered == pytest.approx(found[0].confidence_reached, abs=0.011)
    assert np.mean([e.estimate for e in found]) == pytest.approx(true, abs=0.04)


def test_coverage_with_ties_is_at_least_what_is_said():
    rng = np.random.default_rng(3)
    found = [hodges_lehmann(rng.integers(-3, 4, 10)) for _ in range(2000)]
    assert np.mean([e.low <= 0 <= e.high for e in found]) >= found[0].confidence_reached - 0.01


def test_too_few_pairs_for_the_confidence():
    five, six = hodges_lehmann(np.arange(5)), hodges_lehmann(np.arange(6))
    assert (five.low, five.high, five.confidence_reached, five.estimate) == (-math.inf, math.inf, 1.0, 2.0)
    assert (six.low, six.high, six.confidence_reached) == (0.0, 5.0, 1 - 2 / 64)


def test_a_confidence_that_is_reached_exactly_is_enough():
    assert hodges_lehmann(np.arange(6), confidence=1 - 2 / 64).high == 5.0
    assert hodges_lehmann(np.arange(6), confidence=1 - 1.9 / 64).high == math.inf


def test_zeros_stay_or_go():
    d = [0.0, 0.0, 0.0, 1.0, 2.0]
    kept, dropped = hodges_lehmann(d), hodges_lehmann(d, zeros="drop")
    assert (kept.estimate, kept.used, kept.pairs) == (0.5, 5, 5)
    assert (dropped.estimate, dropped.used, dropped.pairs, dropped.zero_rule) == (1.5, 2, 5, "drop")
    nothing = hodges_lehmann([0.0, 0.0], zeros="drop")
    assert (nothing.estimate, nothing.low, nothing.high, nothing.used) == (0.0, -math.inf, math.inf, 0)


def test_shift_scale_and_resolution():
    d = np.random.default_rng(9).normal(size=20)
    base, moved = hodges_lehmann(d), hodges_lehmann(3 - 2 * d)
    assert moved.estimate == pytest.approx(3 - 2 * base.estimate)
    assert (moved.low, moved.high) == pytest.approx((3 - 2 * base.high, 3 - 2 * base.low))
    assert hodges_lehmann([0.1 + 0.2 - 0.3, 0.1], zeros="drop", resolution=0.1).used == 1


def test_bad_input_is_named():
    with pytest.raises(BadValue, match=r"confidence must be in \(0, 1\), got 95"):
        hodges_lehmann([1.0], confidence=95)
    with pytest.raises(BadValue, match="at least one"):
        hodges_lehmann([])
    with pytest.raises(BadValue, match="1 NaN"):
        hodges_lehmann([1.0, math.nan])
    with pytest.raises(BadValue, match="at most 500"):
        hodges_lehmann(np.ones(501))
    with pytest.raises(UnknownName, match="zero rule"):
        hodges_lehmann([1.0], zeros="keep")
