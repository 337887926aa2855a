"""The space of densities: exact counts, the projection, the cube; draws that are uniform over what obeys."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, stream
from sparseflow.masks import count
from sparseflow.search import Space
from sparseflow.search.space import STEPS
from sparseflow.search.uniform import draw

SIZES = {"first": 784 * 30, "middle": 30 * 30, "output": 30 * 10}
SHAPES = {"first": torch.Size((30, 784)), "middle": torch.Size((30, 30)), "output": torch.Size((10, 30))}
DENSITIES = st.floats(0.0, 1.2)


@st.composite
def spaces(draw):
    sizes = draw(st.lists(st.integers(1, 3000), min_size=1, max_size=5))
    low, high = sorted(draw(st.tuples(*[st.integers(1, STEPS)] * 2)))
    names = {f"layer {k}": size for k, size in enumerate(sizes)}
    free = Space(names, draw(st.booleans()), low / STEPS, high / STEPS)
    least = free.active(free.lowest) / free.total
    bound = draw(st.one_of(st.none(), st.floats(least, 1.0)))
    try:
        return Space(names, free.uniform, free.low, free.high, bound)
    except BadValue:  # the division rounded down
        return free


@given(spaces(), st.data())
def test_counts_are_those_that_the_budgets_give_to_masks(space, data):
    vector = [data.draw(st.integers(1, STEPS)) / STEPS for _ in range(space.dimensions)]
    shapes = {name: torch.Size((size,)) for name, size in space.sizes.items()}
    budget = ("uniform", vector[0]) if space.uniform else ("vector", vector)
    assert space.counts(vector) == count(budget[0], shapes, budget[1])
    assert space.active(vector) == sum(space.counts(vector).values())
    assert space.total_density(vector) == space.active(vector) / sum(space.sizes.values())


@settings(max_examples=60, deadline=None)
@given(spaces(), st.data())
def test_the_projection_obeys_uses_up_the_bound_and_does_nothing_twice(space, data):
    vector = [data.draw(DENSITIES) for _ in range(space.dimensions)]
    found = space.project(vector)
    assert space.obeys(found)
    assert sum(space.counts(found).values()) <= Fraction(repr(space.max_density or 1.0)) * space.total
    assert space.project(found) == found
    assert found == tuple(round(d, 6) for d in found)
    clipped = [min(max(d, space.low), space.high) for d in vector]
    assert all(f <= c + 0.6 / STEPS for f, c in zip(found, clipped, strict=True))
    if space.obeys([round(c, 6) for c in clipped]):
        assert found == tuple(round(c, 6) for c in clipped)
        return
    # Every density goes the same part of its way down, and a step further up would be too much.
    ways = [(c - space.low, f - space.low) for c, f in zip(clipped, found, strict=True) if c > space.low]
    part = max(f / c for c, f in ways)
    assert all(f <= part * c + 1e-12 and f >= part * c - 2.5 / STEPS for c, f in ways)
    more = [min(c, f + 2 / STEPS) if c > space.low else f for c, f in zip(clipped, found, strict=True)]
    assert space.active(more) > space.limit


def test_a_projected_vector_keeps_its_proportions():
    space = Space(SIZES, low=0.01, max_density=0.1)
    found = space.project((0.91, 0.46, 0.31))
    above = np.array(found) - 0.01
    assert above / above[0] == pytest.approx(np.array([0.9, 0.45, 0.3]) / 0.9, abs=3e-4)
    assert space.limit - space.active(found) <= 1


@settings(max_examples=60, deadline=None)
@given(spaces(), st.data())
def test_the_cube_stands_for_what_obeys(space, data):
    point = [data.draw(st.floats(0.0, 1.0)) for _ in range(space.dimensions)]
    vector = space.from_cube(point)
    assert space.obeys(vector)
    assert ((space.to_cube(vector) >= 0) & (space.to_cube(vector) <= 1)).all()


@pytest.mark.parametrize("bound", [None, 0.5, 0.03])
def test_the_cube_goes_there_and_back(bound):
    large = {name: 10**6 * size for name, size in SIZES.items()}  # so that rounding to weights is nothing
    space = Space(large, low=0.01, max_density=bound)
    points = np.random.default_rng(0).random((200, 3))
    back = np.array([space.to_cube(space.from_cube(p)) for p in points])
    assert np.abs(back - points).max() < 1e-3
    if bound is None:
        assert space.from_cube([0.0, 0.5, 1.0]) == (0.01, 0.505, 1.0)
    else:  # a face of the cube that is cut off is the bound's plane
        assert space.total_density(space.from_cube([1.0, 0.3, 0.7])) == pytest.approx(bound, rel=1e-3)


# Three spaces of few vectors, cut by a bound: small enough that each vector is counted.
FEW = [
    (Space({"a": 10**6, "b": 10**6}, low=0.1, high=0.100019, max_density=0.100007), 2),
    (Space({"a": 10**6, "b": 3 * 10**6, "c": 2 * 10**6}, low=0.1, high=0.100007, max_density=0.100002), 3),
    (Space({"a": 40, "b": 25}, low=0.499995, high=0.500004, max_density=0.5), 2),  # counts step within the grid
    (Space({"a": 10**6, "b": 10**6}, uniform=True, low=0.1, high=0.100019, max_density=0.100007), 1),
]


@pytest.mark.parametrize(("space", "dimensions"), FEW)
def test_every_vector_that_obeys_is_equally_likely(space, dimensions):
    """All vectors are listed by brute force and drawn 15 times each on average; chi-square at 1 in 1,000."""
    grid = [k / STEPS for k in range(round(space.low * STEPS), round(space.high * STEPS) + 1)]
    every = [v for v in itertools.product(grid, repeat=dimensions) if space.obeys(v)]
    assert 5 < len(every) < 0.75 * len(grid) ** dimensions
    generator = stream(5, "test")
    drawn = [draw(space, generator) for _ in range(15 * len(every))]
    seen = dict.fromkeys(every, 0)
    for vector in drawn:
        seen[vector] += 1
    assert scipy.stats.chisquare(list(seen.values())).pvalue > 1e-3


@pytest.mark.parametrize("bound", [0.45, 0.2])
def test_draws_are_distributed_as_those_of_plain_rejection(bound):
    """Each density and their weighted sum, against boxes drawn uniformly until they obey (Kolmogorov-Smirnov)."""
    space = Space({"a": 4000, "b": 3000, "c": 500}, max_density=bound)
    generator, numbers = stream(2, "test"), np.random.default_rng(1)
    found = np.array([draw(space, generator) for _ in range(1000)])
    box = np.round(numbers.uniform(space.low - 5e-7, 1 + 5e-7, (400_000, 3)), 6)
    near = box[box @ [4000, 3000, 500] <= space.limit + 1.5]
    plain = np.array([v for v in near[:4000] if space.obeys(v)])
    for mine, theirs in [*zip(found.T, plain.T, strict=True), (found @ [8, 6, 1], plain @ [8, 6, 1])]:
        assert scipy.stats.ks_2samp(mine, theirs).pvalue > 1e-3


def test_what_is_taken_is_not_drawn_until_nothing_is_left():
    space = Space({"a": 100}, low=0.5, high=0.500005)
    taken: set = set()
    for number in range(6):
        taken.add(draw(space, stream(0, number), taken))
    assert taken == {((500_000 + k) / STEPS,) for k in range(6)}
    with pytest.raises(BadValue, match="not taken"):
        draw(space, stream(0, 6), taken)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sizes": {}}, "at least one layer"),
        ({"sizes": {"a": 0}}, "weights of a"),
        ({"low": 0.0}, "low must be in"),
        ({"low": 0.6, "high": 0.5}, "low must not be above high"),
        ({"high": 0.12345678}, "at most 6 decimals"),
        ({"max_density": 1.1}, "max_density must be in"),
        ({"low": 0.3, "max_density": 0.2}, "larger max_density or a smaller low"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(BadValue, match=says):
        Space(**{"sizes": SIZES, **arguments})
    with pytest.raises(BadValue, match="has 3 densities, got 2"):
        Space(SIZES).counts((0.1, 0.2))
    with pytest.raises(BadValue, match="finite"):
        Space(SIZES).project((0.1, 0.2, float("nan")))
