"""Holm and Benjamini-Hochberg against worked examples, their definitions and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue
from sparseflow.stats import benjamini_hochberg, holm

P_LISTS = st.lists(st.floats(0, 1), min_size=1, max_size=30)
BOTH = pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])


def test_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]  # ascending: 0.005, 0.01, 0.03, 0.04
    # Holm: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 raised to 0.06.
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # BH: 4/1 x 0.005 = 0.02 and 4/2 x 0.01 = 0.02; 4/3 x 0.03 = 0.04 and 4/4 x 0.04 = 0.04.
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_capped_at_one():
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert benjamini_hochberg([0.9, 1.0]).tolist() == [1.0, 1.0]


@BOTH
def test_cells_not_yet_run_do_not_count(adjust):
    p = np.array([math.nan, 0.01, math.nan, 0.04, 0.03])
    adjusted = adjust(p)
    assert np.isnan(adjusted).tolist() == [True, False, True, False, False]
    assert adjusted[[1, 3, 4]].tolist() == adjust([0.01, 0.04, 0.03]).tolist()
    assert p[1] == 0.01, "the input is left as it was"
    assert np.isnan(adjust([math.nan, math.nan])).all()


@given(p=P_LISTS)
def test_benjamini_hochberg_is_scipys(p):
    assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p), rel=1e-12, abs=1e-300)


@given(p=P_LISTS)
def test_holm_is_its_definition(p):
    ascending = sorted(p)
    m = len(p)
    stepped = [min(1.0, max((m - j) * ascending[j] for j in range(i + 1))) for i in range(m)]
    assert sorted(holm(p)) == pytest.approx(stepped, rel=1e-12, abs=1e-300)


@BOTH
@given(p=P_LISTS)
def test_order_and_bounds(adjust, p):
    p = np.array(p)
    adjusted = adjust(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= p * (1 - 1e-15)).all()
    assert (adjusted <= np.minimum(1.0, p * p.size * (1 + 1e-15))).all(), "never harsher than Bonferroni"
    assert adjust(p[::-1])[::-1].tolist() == adjusted.tolist()
    assert (benjamini_hochberg(p) <= holm(p) * (1 + 1e-15)).all()


@BOTH
@given(p=P_LISTS, at=st.integers(0, 29), factor=st.floats(0, 1))
def test_a_smaller_p_raises_no_adjusted_p(adjust, p, at, factor):
    smaller = np.array(p)
    smaller[at % len(p)] *= factor
    assert (adjust(smaller) <= adjust(p) * (1 + 1e-15)).all()


@BOTH
def test_bad_input_is_named(adjust):
    with pytest.raises(BadValue, match=r"\[0, 1\] or NaN, got 1.5"):
        adjust([0.5, 1.5])
    with pytest.raises(BadValue, match=r"got -0.1"):
        adjust([-0.1])
    with pytest.raises(BadValue, match="at least one"):
        adjust([])
    with pytest.raises(BadValue, match="shape"):
        adjust([[0.1]])
