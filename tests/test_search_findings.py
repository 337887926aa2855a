"""What found vectors say: the Pareto front, transfer to another depth, importance of each layer's density."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue
from sparseflow.search import front, importances, to_depth

PAIRS = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), st.integers(1, 5)), max_size=12)
VECTORS = st.lists(st.integers(1, 10**6).map(lambda k: k / 10**6), min_size=1, max_size=8)


def beats(one: tuple[float, int], other: tuple[float, int]) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(PAIRS)
def test_the_front_is_what_nothing_beats(pairs):
    finite = [k for k, (score, _) in enumerate(pairs) if not math.isnan(score)]
    expected = [k for k in finite if not any(beats(pairs[other], pairs[k]) for other in finite)]
    found = front([score for score, _ in pairs], [active for _, active in pairs])
    assert found == sorted(expected, key=lambda k: (pairs[k][1], k))


def test_a_front_by_hand():
    assert front([0.9, 0.8, 0.9, 0.7, 0.9, math.nan], [50, 20, 40, 20, 40, 1]) == [1, 2, 4]
    with pytest.raises(BadValue, match="as many scores"):
        front([0.9], [1, 2])


@given(VECTORS)
def test_a_vector_is_its_own_transfer_and_keeps_its_ends(vector):
    assert to_depth(vector, len(vector)) == tuple(vector)
    for layers in (2, 5, 33):
        there = to_depth(vector, layers)
        assert len(there) == layers
        assert (there[0], there[-1]) == (vector[0], vector[-1])
        assert min(vector) <= min(there) <= max(there) <= max(vector)
        assert to_depth(vector[::-1], layers) == pytest.approx(there[::-1], abs=2e-6)
    assert to_depth(to_depth(vector, 3 * (len(vector) - 1) + 1), len(vector)) == pytest.approx(
        vector if len(vector) > 1 else (vector[0],), abs=1e-6
    )


def test_transfers_by_hand():
    assert to_depth((0.2, 0.8, 0.4), 5) == (0.2, 0.5, 0.8, 0.6, 0.4)
    assert to_depth((0.2, 0.5, 0.8, 0.6, 0.4), 3) == (0.2, 0.8, 0.4)
    assert to_depth((0.3,), 4) == (0.3,) * 4
    assert to_depth((0.2, 0.8), 1) == (0.5,)
    for vector, layers, says in [((), 3, "at least one"), ((0.1, 0.0), 3, "density 1"), ((0.1,), 0, "layers")]:
        with pytest.raises(BadValue, match=says):
            to_depth(vector, layers)


def told(runs: int = 60):
    numbers = np.random.default_rng(4)
    vectors = numbers.random((runs, 3))
    scores = 2.0 * vectors[:, 0] - 0.7 * vectors[:, 2] + 0.02 * numbers.standard_normal(runs)
    return [(tuple(v), float(s)) for v, s in zip(vectors, scores, strict=True)]


def test_importance_finds_the_layers_that_matter_and_their_direction():
    """Score 2 a - 0.7 c. A perfect model's shares would be 2 (2, 0, 0.7)^2 / (2^2 + 0.7^2) = 1.78, 0 and 0.22."""
    found = importances(["a", "b", "c"], [*told(), ((0.1, 0.1, 0.1), math.nan)], resamples=4)
    a, b, c = (found.layers[name] for name in "abc")
    assert 1.2 < a.low < a.share < a.high < 2.2
    assert abs(b.share) < 0.06
    assert 0.02 < c.share < 0.4
    assert a.tau > 0.6 > 0 > c.tau
    assert found.explained > 0.8
    assert found.runs == 60


def test_of_scores_by_chance_the_forest_explains_nothing():
    numbers = np.random.default_rng(0)
    found = importances(["a", "b", "c"], [(v, numbers.random()) for v, _ in told(40)], resamples=3)
    assert found.explained < 0.1


def test_importance_is_a_function_of_its_arguments():
    def shares(**options):
        found = importances(["a", "b", "c"], told(20), **{"resamples": 2, **options})
        return [(i.share, i.low, i.high) for i in found.layers.values()]

    assert shares() == shares()
    assert len({str(shares(**o)) for o in ({}, {"seed": 1}, {"resamples": 3}, {"level": 0.5})}) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["a", "b"], told()), "a vector has 2 densities"),
        ((["a", "b", "c"], told(9)), "at least 10 runs"),
        ((["a", "b", "c"], [(v, 0.5) for v, _ in told()]), "all scores are equal"),
        ((["a", "b", "c"], told(), 0, {"resamples": 1}), "resamples"),
        ((["a", "b", "c"], told(), 0, {"level": 1.0}), "level"),
    ],
)
def test_importance_of_what_says_nothing_is_refused(arguments, says):
    options = arguments[3] if len(arguments) == 4 else {}
    with pytest.raises(BadValue, match=says):
        importances(*arguments[:3], **options)
