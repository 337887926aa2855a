"""Mean, sample standard deviation and count."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue
from sparseflow.stats import Summary, summary


def test_by_hand():
    assert summary([1.0, 2.0, 6.0]) == Summary(mean=3.0, std=pytest.approx(math.sqrt(7)), n=3)
    assert summary([10.0, 10.0, 10.0]) == Summary(10.0, 0.0, 3)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_is_the_standard_librarys(values):
    found = summary(np.array(values))
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(statistics.stdev(values), rel=1e-9, abs=1e-9)


def test_one_value_has_no_spread():
    found = summary([0.5])
    assert (found.mean, found.n) == (0.5, 1)
    assert math.isnan(found.std)


def test_nothing_is_ignored():
    found = summary([1.0, math.nan, 3.0])
    assert math.isnan(found.mean)
    assert math.isnan(found.std)
    assert found.n == 3
    infinite = summary([1.0, math.inf])
    assert infinite.mean == math.inf
    assert math.isnan(infinite.std)
    assert math.isnan(summary([-math.inf, math.inf]).mean)


def test_bad_input_is_named():
    with pytest.raises(BadValue, match="values must hold at least one"):
        summary([])
    with pytest.raises(BadValue, match="shape"):
        summary([[1.0, 2.0]])
