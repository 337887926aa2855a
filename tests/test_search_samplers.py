"""Samplers: the same suggestion for the same arguments, the bound held exactly, nothing twice, options that matter."""

from __future__ import annotations

import math

import pytest

from sparseflow.core import BadValue, UnknownName
from sparseflow.search import Space, suggest

SPACE = Space({"first": 784 * 30, "middle": 30 * 30, "output": 30 * 10}, max_density=0.4)


def score(vector) -> float:
    return -sum((d - 0.3 - 0.1 * k) ** 2 for k, d in enumerate(vector))


def history(sampler: str, samples: int, seed: int = 0, space: Space = SPACE, of=score, **options):
    """A search without early stopping, one suggestion after the other: [(suggestion, score)]."""
    found: list = []
    for number in range(samples):
        told = [(s.vector, y) for s, y in found]
        suggestion = suggest(sampler, space, number, seed, told, **options)
        found.append((suggestion, of(suggestion.vector)))
    return found


def test_random_depends_on_seed_and_number_alone_unless_it_would_repeat_something():
    first, second, other = (suggest("random", SPACE, n, s).vector for n, s in ((0, 0), (1, 0), (0, 1)))
    assert len({first, second, other}) == 3
    assert suggest("random", SPACE, 1, 0, [(first, 0.3)]) == suggest("random", SPACE, 1, 0, pending=[first])
    assert suggest("random", SPACE, 1, 0, [(first, 0.3)]).vector == second
    assert suggest("random", SPACE, 0, 0, [(first, 0.3)]).vector not in (first, second, other)
    assert suggest("random", SPACE, 0, 0).origin == "random"


def test_no_random_vector_exceeds_the_bound_by_one_weight():
    active = [SPACE.active(suggest("random", SPACE, n, 0).vector) for n in range(2000)]
    assert max(active) <= math.floor(0.4 * (784 * 30 + 30 * 30 + 30 * 10))
    assert max(active) > 0.999 * SPACE.limit  # and the bound's neighbourhood is reached


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("randon", 0), UnknownName, "did you mean 'random'"),
        (("random", -1), BadValue, "numbered from 0"),
        (("random", 0, [((0.1, 0.2), 0.5)]), BadValue, "has 3 densities, got 2"),
    ],
)
def test_what_cannot_be_suggested_is_said(arguments, error, says):
    sampler, number, *told = arguments
    with pytest.raises(error, match=says):
        suggest(sampler, SPACE, number, 0, *told)
    with pytest.raises(BadValue, match=r"has no option 'kapa'"):
        suggest("random", SPACE, 0, 0, kapa=2.0)
