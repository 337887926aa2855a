"""Samplers: the same suggestion for the same arguments, the bound held exactly, nothing twice, options that matter."""

from __future__ import annotations

import math
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sparseflow.core import BadValue, UnknownName
from sparseflow.search import Space, bayes, suggest
from sparseflow.stats import wilcoxon

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


BAYES = {"initial": 4}


def test_bayes_starts_as_random_search_does_and_says_what_chance_chose():
    found = history("bayes", 7, **BAYES)
    chance = history("random", 7)
    assert [s.origin for s, _ in found] == ["initial"] * 4 + ["bayes"] * 3
    assert [s.vector for s, _ in found[:4]] == [s.vector for s, _ in chance[:4]]
    assert suggest("bayes", SPACE, 6, 0, pending=[s.vector for s, _ in found[:6]], **BAYES).origin == "initial"


def test_a_replayed_history_gives_the_next_suggestion_again_in_any_order(monkeypatch):
    found = history("bayes", 8, **BAYES)
    told, pending = [(s.vector, y) for s, y in found[:6]], [s.vector for s, _ in found[6:]]
    first = suggest("bayes", SPACE, 8, 0, told, pending, **BAYES)
    assert first == suggest("bayes", SPACE, 8, 0, told[::-1], pending[::-1], **BAYES)
    assert history("bayes", 8, **BAYES) == found
    # To the bit: the model is given the same arrays, so that no sum is taken in another order.
    given = []
    monkeypatch.setattr(bayes, "_best_point", lambda points, scores, *_: given.append((points, scores)) or points[0])
    for order in (1, -1):
        suggest("bayes", SPACE, 8, 0, told[::order], pending[::order], **BAYES)
    assert all(np.array_equal(one, other) for one, other in zip(*given, strict=True))


def test_every_knob_of_bayes_changes_what_it_suggests():
    told = [(s.vector, y) for s, y in history("random", 14)]
    pending = [suggest("random", SPACE, 14, 0).vector]
    base = {"number": 15, "seed": 0, "told": told, "pending": pending, "space": SPACE, **BAYES, "kappa": 1.0}
    changes = [
        {}, {"kappa": 10.0}, {"initial": 20}, {"lie": "min"}, {"lie": "max"}, {"pending": []}, {"told": told[1:]},
        {"told": [(v, -y) for v, y in told]}, {"space": Space(SPACE.sizes, max_density=0.3)},
    ]  # fmt: skip
    found = [suggest("bayes", **{**base, **change}).vector for change in changes]
    assert len(set(found)) == len(changes)


def test_a_diverged_run_counts_as_the_worst_and_none_of_them_as_a_score():
    space = Space({"a": 100, "b": 100, "c": 100})
    told = [(s.vector, y) for s, y in history("random", 20, space=space)]
    told.sort(key=lambda both: both[1])
    found = [
        suggest("bayes", space, 20, 0, start + told[1:], kappa=1.0, **BAYES).vector
        for start in ([(told[0][0], math.nan)], [(told[0][0], told[1][1])], told[:1], [])
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    nothing = [(vector, math.nan) for vector, _ in told]
    assert suggest("bayes", space, 20, 0, nothing, **BAYES).origin == "initial"


def test_what_has_been_tried_is_not_suggested_again():
    """A score that rises to the corner: without uncertainty's worth the maximum stays there, told or pending."""
    space = Space({"a": 100, "b": 100, "c": 100})
    told = [(s.vector, sum(s.vector)) for s, _ in history("random", 14, space=space)]
    greedy = {"kappa": 0.0, "lie": "max", **BAYES}
    corner = suggest("bayes", space, 14, 0, told, **greedy).vector
    assert corner == (1.0, 1.0, 1.0)
    known = [*told, (corner, 3.0)]
    again = suggest("bayes", space, 15, 0, known, **greedy)
    assert (again.origin, again.vector) == ("random", suggest("random", space, 15, 0, known).vector)
    assert suggest("bayes", space, 15, 0, told, [corner], **greedy).vector != corner
    repeated = [*told, (told[0][0], 0.0)]  # one vector, two scores: their mean
    mean = [(told[0][0], told[0][1] / 2), *told[1:]]
    assert suggest("bayes", space, 15, 0, repeated, **BAYES) == suggest("bayes", space, 15, 0, mean, **BAYES)


@pytest.mark.parametrize(
    ("options", "says"), [({"kappa": -1.0}, "kappa"), ({"initial": 0}, "initial"), ({"lie": "best"}, "lie must be min")]
)
def test_options_of_bayes_out_of_their_domain_are_refused(options, says):
    with pytest.raises(BadValue, match=says):
        suggest("bayes", SPACE, 0, 0, **options)


@pytest.mark.slow
def test_no_vector_of_bayes_exceeds_the_bound_by_one_weight():
    """2,000 suggestions in 100 histories of several spaces, bounds, kappas and pending vectors."""
    suggested = 0
    for seed in range(100):
        numbers = np.random.default_rng(seed)
        sizes = {str(k): int(n) for k, n in enumerate(numbers.integers(20, 5000, 2 + seed % 4))}
        bound = float(numbers.uniform(0.05, 0.6))
        space = Space(sizes, low=0.01, max_density=bound)
        found: list = []
        for number in range(20):
            told = [(v, float(numbers.random())) for v in found[: max(0, number - seed % 3)]]
            options = {"kappa": float(numbers.choice([0.0, 2.576, 10.0])), "initial": 3}
            vector = suggest("bayes", space, number, seed, told, found[len(told) :], **options).vector
            assert vector not in found
            exact = [Fraction(repr(d)) * n + Fraction(1, 2) for d, n in zip(vector, sizes.values(), strict=True)]
            assert sum(max(1, math.floor(count)) for count in exact) <= Fraction(repr(bound)) * space.total
            assert all(0.01 <= d <= 1.0 for d in vector)
            found.append(vector)
            suggested += 1
    assert suggested == 2000


@pytest.mark.slow
def test_bayesian_search_comes_closer_to_a_known_optimum_than_chance():
    """As benchmarks/search_synthetic.py, smaller: 4 densities, 30 samples, 7 seeds, kappa 2.576."""
    path = Path(__file__).parents[1] / "benchmarks" / "search_synthetic.py"
    regret = runpy.run_path(str(path))["regret"]
    gains = [regret("random", 4, seed, 30) - regret("bayes", 4, seed, 30, kappa=2.576) for seed in range(7)]
    assert wilcoxon(gains).p_value < 0.05
