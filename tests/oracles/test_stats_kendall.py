"""Kendall's tau-b against scipy and a count of all pairs of points."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue
from sparseflow.stats import TauAverage, average_abs_tau, kendall_tau

POINTS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=15)


def counted(x, y):
    concordant = discordant = only_x = only_y = 0
    for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2):
        concordant += (a - c) * (b - d) > 0
        discordant += (a - c) * (b - d) < 0
        only_x += b == d and a != c
        only_y += a == c and b != d
    alike = concordant + discordant
    if alike + only_x == 0 or alike + only_y == 0:
        return math.nan
    return (concordant - discordant) / math.sqrt((alike + only_x) * (alike + only_y))


@given(points=POINTS)
def test_tau_is_the_count_and_scipys(points):
    x, y = zip(*points, strict=True)
    found = kendall_tau(x, y)
    assert found == pytest.approx(counted(x, y), abs=1e-15, nan_ok=True)
    assert found == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12, nan_ok=True)


def test_eleven_points_as_measured():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y = rng.normal(size=11), rng.normal(size=11)
        assert kendall_tau(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


def test_known_values():
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6)), "tau-b, not tau-a"
    assert kendall_tau([-1.7e308, 0, 1.7e308], [5e-324, 1e-323, 2e-323]) == 1.0, "no overflow, no underflow"


def test_a_constant_series_has_no_tau():
    assert math.isnan(kendall_tau([1, 1, 1, 1], [1, 2, 3, 4]))
    assert math.isnan(kendall_tau([1, 2, 3, 4], [0, 0, 0, 0]))


def test_points_without_a_number_are_left_out():
    x = [1, 2, math.nan, 3, 4, math.inf]
    y = [2, 1, 5, 3, -math.inf, 4]
    assert kendall_tau(x, y) == kendall_tau([1, 2, 3], [2, 1, 3])
    assert math.isnan(kendall_tau([1, 2, math.nan], [1, 2, 3])), "two points left"
    assert math.isnan(kendall_tau([1, 2, math.nan, 2], [3, 3, 1, 3])), "constant once the point is gone"


def test_average_of_sizes_with_those_without_a_tau_counted():
    up, down, part = ([1, 2, 3], [4, 5, 6]), ([1, 2, 3], [6, 5, 4]), ([1, 2, 3, 4], [4, 2, 3, 1])
    constant, short = ([1, 1, 1], [1, 2, 3]), ([1, 2, math.nan], [1, 2, 3])
    found = average_abs_tau([up, constant, down, short, part])
    assert found == TauAverage(mean=pytest.approx((1 + 1 + 4 / 6) / 3), counted=3, constant=2)
    nothing = average_abs_tau([constant])
    assert math.isnan(nothing.mean)
    assert (nothing.counted, nothing.constant) == (0, 1)
    assert average_abs_tau([]).counted == 0


def test_bad_input_is_named():
    with pytest.raises(BadValue, match="got 2 and 3"):
        kendall_tau([1, 2], [1, 2, 3])
    with pytest.raises(BadValue, match="x must hold at least one"):
        kendall_tau([], [])
    with pytest.raises(BadValue, match="y must be one-dimensional"):
        kendall_tau([1.0], [[1.0]])
