"""The signed-rank test against enumeration of all sign patterns, scipy, and the papers' numbers."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, UnknownName
from sparseflow.stats import smallest_p, wilcoxon

ALTERNATIVES = ["greater", "less", "two-sided"]
ZEROS = ["pratt", "drop"]


def enumerated(differences, alternative, zeros):
    """(W+, p) by listing every sign pattern; mid-ranks counted by hand, in units of 1/2."""
    d = [float(x) for x in differences if zeros == "pratt" or x != 0]
    size = [abs(x) for x in d]
    ranks = [2 * sum(b < a for b in size) + sum(b == a for b in size) + 1 for a in size]  # doubled mid-ranks
    live = [r for r, x in zip(ranks, d, strict=True) if x != 0]
    observed = sum(r for r, x in zip(ranks, d, strict=True) if x > 0)
    sums = [
        sum(r for r, s in zip(live, signs, strict=True) if s) for signs in itertools.product([0, 1], repeat=len(live))
    ]
    centre = sum(live) / 2
    as_extreme = {
        "greater": lambda s: s >= observed,
        "less": lambda s: s <= observed,
        "two-sided": lambda s: abs(s - centre) >= abs(observed - centre),
    }[alternative]
    return observed / 2, sum(map(as_extreme, sums)) / len(sums)


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@settings(deadline=None, max_examples=60)
@given(d=st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_exact_is_the_enumeration_under_ties_and_zeros(alternative, zeros, d):
    result = wilcoxon(d, alternative=alternative, zeros=zeros)
    assert (result.statistic, result.p_value) == enumerated(d, alternative, zeros)


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_exact_is_the_enumeration_for_twelve_pairs(alternative, zeros):
    rng = np.random.default_rng(5)
    for spread in (2, 5, 1000):
        for shift in (0, 1):
            d = rng.integers(-spread, spread + 1, 12) + shift
            result = wilcoxon(d, alternative=alternative, zeros=zeros)
            assert (result.statistic, result.p_value) == enumerated(d, alternative, zeros)


@pytest.mark.parametrize("n", [5, 15, 50, 200])
@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_exact_is_scipys_without_ties_and_zeros(alternative, n):
    d = np.random.default_rng(n).normal(0.2, 1.0, n)
    ours = wilcoxon(d, alternative=alternative).p_value
    assert ours == pytest.approx(scipy.stats.wilcoxon(d, alternative=alternative, method="exact").pvalue, rel=1e-10)


@pytest.mark.parametrize(("zeros", "scipy_zeros"), [("pratt", "pratt"), ("drop", "wilcox")])
@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_normal_is_scipys(alternative, zeros, scipy_zeros):
    rng = np.random.default_rng(11)
    for n in (3, 15, 40, 300, 1000):
        for d in (rng.normal(0.1, 1.0, n), rng.integers(-3, 5, n), rng.integers(-20, 20, n), 1.0 + np.arange(n)):
            result = wilcoxon(d, alternative=alternative, zeros=zeros, method="normal")
            reference = scipy.stats.wilcoxon(
                d, alternative=alternative, zero_method=scipy_zeros, method="asymptotic", correction=False
            )
            assert result.p_value == pytest.approx(reference.pvalue, rel=1e-9, abs=1e-300)
            if alternative != "two-sided":  # there scipy reports the smaller of W+ and W-
                assert result.statistic == reference.statistic


def test_fifteen_wins_of_fifteen_are_the_papers_cell():
    """Table 3.3 prints 0.0003, the normal approximation at W = 120; the exact p is 0.00003."""
    d = np.arange(1, 16)
    normal, exact = wilcoxon(d, method="normal"), wilcoxon(d)
    assert normal.statistic == exact.statistic == 120
    assert round(normal.p_value, 4) == 0.0003
    assert exact.p_value == exact.smallest_p == 2**-15
    assert wilcoxon(-d).p_value == 1.0
    assert wilcoxon(d, alternative="two-sided").p_value == 2**-14 == smallest_p(15, "two-sided")


def test_zero_rules_worked_by_hand():
    """|d| = 0, 1, 2, 2, 3. Pratt: ranks 1 (dropped), 2, 3.5, 3.5, 5. Drop: ranks 1, 2.5, 2.5, 4."""
    d = [0, -1, 2, 2, 3]
    pratt, drop = wilcoxon(d), wilcoxon(d, zeros="drop")
    assert (pratt.statistic, pratt.p_value) == (12.0, 2 / 16)
    assert (drop.statistic, drop.p_value) == (9.0, 2 / 16)
    for result, rule in ((pratt, "pratt"), (drop, "drop")):
        assert (result.pairs, result.used, result.zeros, result.ties) == (5, 4, 1, True)
        assert (result.smallest_p, result.method, result.zero_rule) == (2**-5, "exact", rule)
    assert not wilcoxon([0, 0, 1, -2]).ties, "zeros alone are no ties of the distribution"


@pytest.mark.parametrize("method", ["exact", "normal"])
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_all_zeros_say_nothing(alternative, zeros, method):
    result = wilcoxon([0.0, -0.0, 0.0], alternative=alternative, zeros=zeros, method=method)
    assert (result.statistic, result.p_value, result.used, result.zeros) == (0.0, 1.0, 0, 3)


def test_resolution_restores_ties_and_zeros_that_rounding_broke():
    images = 10
    sparse, dense = np.array([3, 2, 7, 6]) / images, np.array([2, 1, 7.0, 7]) / images
    d = np.append(sparse - dense, 0.1 + 0.2 - 0.3)
    assert d[0] != d[1], "the two differ in the last bit"
    assert wilcoxon(d).zeros == 1
    rounded = wilcoxon(d, resolution=1 / images)
    whole = wilcoxon([1, 1, 0, -1, 0])
    assert (rounded.statistic, rounded.p_value, rounded.zeros) == (whole.statistic, whole.p_value, 2)
    assert rounded.ties


@given(d=st.lists(st.integers(-20, 20), min_size=1, max_size=40))
def test_alternatives_mirror_each_other(d):
    up, down = wilcoxon(d), wilcoxon([-x for x in d], alternative="less")
    assert up.p_value == down.p_value
    both = wilcoxon(d, alternative="two-sided").p_value
    assert both == min(1.0, 2 * min(up.p_value, wilcoxon(d, alternative="less").p_value))
    assert up.p_value >= up.smallest_p


def test_two_hundred_tied_pairs_are_quick_and_near_the_normal():
    d = np.random.default_rng(0).integers(-50, 60, 200)
    start = time.perf_counter()
    exact = wilcoxon(d).p_value
    assert time.perf_counter() - start < 5
    assert exact == pytest.approx(wilcoxon(d, method="normal").p_value, rel=0.2)


def test_the_input_is_left_as_it_was():
    d = np.array([0.31, -0.12, 0.0])
    wilcoxon(d, resolution=0.1)
    assert d.tolist() == [0.31, -0.12, 0.0]


def test_bad_input_is_named():
    with pytest.raises(BadValue, match="at least one"):
        wilcoxon([])
    with pytest.raises(BadValue, match="2 NaN and 1 infinite of 4"):
        wilcoxon([math.nan, 1, math.nan, math.inf])
    with pytest.raises(BadValue, match="shape"):
        wilcoxon([[1.0, 2.0]])
    with pytest.raises(BadValue, match="resolution must be positive"):
        wilcoxon([1.0], resolution=0.0)
    with pytest.raises(BadValue, match="at most 500 pairs, got 501"):
        wilcoxon(np.ones(501))
    with pytest.raises(UnknownName, match="alternative"):
        wilcoxon([1.0], alternative="bigger")
    with pytest.raises(UnknownName, match="zero rule"):
        wilcoxon([1.0], zeros="wilcox")
    with pytest.raises(UnknownName, match="method"):
        wilcoxon([1.0], method="approx")
    with pytest.raises(BadValue, match="pairs"):
        smallest_p(0)
    with pytest.raises(UnknownName, match="alternative"):
        smallest_p(3, "bigger")
