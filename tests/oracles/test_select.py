"""Selection by rank against sorting in plain Python: exact numbers, ties in a seeded and uniform order."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sparseflow.core import BadValue, stream
from sparseflow.masks import budgets, count, random_masks, random_subset, select
from zoo import ZOO, shapes_of, total_of

REJECT = 1e-4

KINDS = ("random", "constant", "tied", "infinite", "tiny")


def scores_of(kind: str, shape: torch.Size, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if kind == "constant":
        return torch.full(shape, 0.25)
    if kind == "tied":
        return torch.randint(0, 3, shape, generator=draw).float()
    if kind == "infinite":
        some = torch.tensor([-inf, -1.0, 0.0, 1.0, inf])
        return some[torch.randint(0, 5, shape, generator=draw)]
    if kind == "tiny":  # subnormal: 1.4e-45 is the smallest positive float32
        return torch.randint(-4, 5, shape, generator=draw).float() * 1.4e-45
    return torch.randn(shape, generator=draw)


def check_best(mask: Tensor, score: Tensor, k: int, eligible: Tensor | None = None) -> None:
    """Exactly k eligible entries, and none that was left out has a higher score than one that was taken."""
    assert mask.dtype is torch.bool
    assert mask.shape == score.shape
    assert int(mask.sum()) == k
    inside = torch.ones_like(mask) if eligible is None else eligible
    assert not (mask & ~inside).any()
    left = inside & ~mask
    if mask.any() and left.any():
        assert score[mask].min() >= score[left].max()


def joined(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


# Any small scores, by brute force ----------------------------------------------------------------------------------

values = st.one_of(
    st.sampled_from([-inf, inf, 0.0, -0.0, 1.0, 1e-45]), st.floats(-4, 4, width=32).map(lambda v: round(v))
)


@st.composite
def problems(draw):
    """Scores of a few layers, masks to stay within, all in float32."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    scores, within = {}, {}
    for k, size in enumerate(sizes):
        found = draw(st.lists(values, min_size=size, max_size=size))
        inside = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        scores[f"layer{k}"] = torch.tensor(found, dtype=torch.float32).view(1, size)
        within[f"layer{k}"] = torch.tensor(inside).view(1, size)
    return scores, within, draw(st.integers(0, 10**6))


@settings(max_examples=150, deadline=None)
@given(st.data(), problems(), st.booleans())
def test_of_each_layer_the_best(data, problem, everywhere):
    scores, within, seed = problem
    inside = {name: torch.ones_like(mask) for name, mask in within.items()} if everywhere else within
    budget = {name: data.draw(st.integers(0, int(mask.sum()))) for name, mask in inside.items()}
    masks = select(scores, budget, seed, within=None if everywhere else within)
    assert list(masks) == list(scores)
    for name, mask in masks.items():
        check_best(mask, scores[name], budget[name], inside[name])
    again = select(scores, budget, seed, within=None if everywhere else within)
    assert all(torch.equal(masks[name], again[name]) for name in masks)


@settings(max_examples=150, deadline=None)
@given(st.data(), problems(), st.booleans())
def test_of_all_layers_together_the_best(data, problem, everywhere):
    scores, within, seed = problem
    inside = {name: torch.ones_like(mask) for name, mask in within.items()} if everywhere else within
    budget = data.draw(st.integers(0, int(joined(inside).sum())))
    masks = select(scores, budget, seed, within=None if everywhere else within, empty="allow")
    check_best(joined(masks), joined(scores), budget, joined(inside))
    assert {name: mask.shape for name, mask in masks.items()} == {name: s.shape for name, s in scores.items()}


@settings(max_examples=150, deadline=None)
@given(st.data(), problems())
def test_a_layer_that_would_get_none_gets_one_and_the_total_stays(data, problem):
    scores, _, seed = problem
    budget = data.draw(st.integers(len(scores), total_of({n: s.shape for n, s in scores.items()})))
    plain = select(scores, budget, seed, empty="allow")
    masks = select(scores, budget, seed, empty="one")
    assert int(joined(masks).sum()) == budget
    assert all(mask.any() for mask in masks.values())
    if all(mask.any() for mask in plain.values()):
        assert all(torch.equal(masks[name], plain[name]) for name in masks)
        strict = select(scores, budget, seed, empty="error")
        assert all(torch.equal(masks[name], strict[name]) for name in masks)
    else:
        hollow = [name for name, mask in plain.items() if not mask.any()]
        with pytest.raises(BadValue, match=f"none for {', '.join(hollow)}"):
            select(scores, budget, seed, empty="error")
    # By brute force: no set of so many weights with one of each layer has a greater sum (of ranks: scores may be inf).
    ranks = {score: rank for rank, score in enumerate(sorted(set(joined(scores).tolist())))}
    best = sorted((max(ranks[v] for v in s.flatten().tolist()) for s in scores.values()), reverse=True)
    rest = sorted(ranks[v] for v in joined(scores).tolist())
    for rank in best:
        rest.remove(rank)
    greatest = sum(best) + sum(sorted(rest, reverse=True)[: budget - len(scores)])
    assert sum(ranks[v] for v in joined(scores)[joined(masks)].tolist()) == greatest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_scores_of_any_type(dtype):
    score = torch.tensor([[3, 1, 2, 2], [0, 5, 2, 4]]).to(dtype)
    check_best(select({"w": score}, {"w": 4}, 0)["w"], score, 4)
    check_best(select({"w": score}, 4, 0)["w"], score, 4)


def test_neighbouring_doubles_are_not_ties():
    score = torch.tensor([[1.0, 1.0 + 2**-52, 1.0 - 2**-53]], dtype=torch.float64)
    for seed in range(5):
        assert select({"w": score}, 1, seed)["w"].tolist() == [[False, True, False]]
        assert select({"w": score}, {"w": 2}, seed)["w"].tolist() == [[True, True, False]]


# Every budget on every network -------------------------------------------------------------------------------------

LARGE = 1_000_000
"""Weights of a network from which on two kinds of scores must do, and the test is slow."""


NETWORKS = [pytest.param(name, marks=[pytest.mark.slow] if total_of(shapes_of(name)) > LARGE else []) for name in ZOO]


def densities_of(budget: str, density: float, shapes):
    return [density] * len(shapes) if budget == "vector" else density


OPTIONS = {"smart-ratios": lambda density: {"last": min(0.3, density)}}
"""So that the last layer alone never takes more than the whole budget."""


@pytest.mark.parametrize("budget", budgets.names)
@pytest.mark.parametrize("network", NETWORKS)
def test_as_many_weights_as_the_budget_says(network, budget):
    shapes = shapes_of(network)
    cases = list(zip((0.5, 0.1, 0.02, 0.005, 0.1), KINDS, strict=True))
    if total_of(shapes) > LARGE:
        cases = [(0.02, "random"), (0.005, "tied")]
    for density, kind in cases:
        options = OPTIONS.get(budget, lambda density: {})(density)
        goal = count(budget, shapes, densities_of(budget, density, shapes), **options)
        scores = {name: scores_of(kind, shape, k) for k, (name, shape) in enumerate(shapes.items())}
        masks = select(scores, goal, seed=1)
        if isinstance(goal, int):
            assert int(joined(masks).sum()) == goal
            assert all(mask.any() for mask in masks.values())
            check_best(joined(select(scores, goal, seed=1, empty="allow")), joined(scores), goal)
        else:
            for name, k in goal.items():
                check_best(masks[name], scores[name], k)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_scores_on_one_network(kind):
    shapes = shapes_of("resnet 20")
    scores = {name: scores_of(kind, shape, k) for k, (name, shape) in enumerate(shapes.items())}
    for density in (0.5, 0.1, 0.02, 0.005):
        goal = count("global", shapes, density)
        check_best(joined(select(scores, goal, 1, empty="allow")), joined(scores), goal)
        each = count("erk", shapes, density)
        first, again, other = (select(scores, each, seed) for seed in (1, 1, 2))
        for name, k in each.items():
            check_best(first[name], scores[name], k)
        assert torch.equal(joined(first), joined(again))
        assert torch.equal(joined(first), joined(other)) == (kind == "random")


# Ties --------------------------------------------------------------------------------------------------------------


def subsets_p(drawn: Counter, possible: int) -> float:
    """p-value of the chi-square test that all subsets are equally likely; one never drawn counts."""
    seen = list(drawn.values())
    return float(stats.chisquare(seen + [0] * (possible - len(seen))).pvalue)


def chosen(masks: dict[str, Tensor]) -> tuple[int, ...]:
    return tuple(joined(masks).nonzero().flatten().tolist())


def test_tied_weights_are_drawn_uniformly_in_a_layer():
    """Two of five that are tied at the border, beside one that is above and one that is below."""
    score = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0]])
    drawn = Counter(chosen(select({"w": score}, {"w": 3}, seed)) for seed in range(600))
    assert set(drawn) == {tuple(sorted((1, *pair))) for pair in combinations((0, 2, 3, 5, 6), 2)}
    assert subsets_p(drawn, 10) > REJECT


def test_tied_weights_are_drawn_uniformly_over_layers():
    scores = {"a": torch.ones(1, 2), "b": torch.ones(2, 2)}
    drawn = Counter(chosen(select(scores, 2, seed, empty="allow")) for seed in range(900))
    assert set(drawn) == set(combinations(range(6), 2))
    assert subsets_p(drawn, 15) > REJECT


def test_tied_weights_are_drawn_uniformly_within_masks():
    score, inside = torch.zeros(1, 8), torch.tensor([[True, False, True, True, False, True, False, True]])
    drawn = Counter(chosen(select({"w": score}, {"w": 2}, seed, within={"w": inside})) for seed in range(600))
    assert set(drawn) == set(combinations((0, 2, 3, 5, 7), 2))
    assert subsets_p(drawn, 10) > REJECT


def test_tied_weights_that_make_room_are_drawn_uniformly():
    """One of the first layer's two must stay; the other two come from all that is left, each as likely."""
    scores = {"a": torch.zeros(1, 2), "b": torch.ones(1, 1), "c": torch.ones(1, 5)}
    drawn = Counter(chosen(select(scores, 3, seed, empty="one")) for seed in range(600))
    assert set(drawn) == {(a, 2, c) for a in (0, 1) for c in range(3, 8)}
    assert subsets_p(drawn, 10) > REJECT
    # Where ties alone leave a layer empty, its weights and those of the other layer stay exchangeable.
    scores = {"a": torch.zeros(1, 2), "b": torch.zeros(1, 6)}
    drawn = Counter(chosen(select(scores, 3, seed, empty="one")) for seed in range(1000))
    single, double = ({s: n for s, n in drawn.items() if sum(k < 2 for k in s) == inside} for inside in (1, 2))
    assert subsets_p(Counter(single), 30) > REJECT
    assert subsets_p(Counter(double), 6) > REJECT
    # Plain: 6 of C(8, 3) = 56 take both, 30 one, and 20 none; of those, 1 of 6 then takes the second as well.
    expected = [1000 * (30 + 20 * 5 / 6) / 56, 1000 * (6 + 20 * 1 / 6) / 56]
    assert stats.chisquare([sum(single.values()), sum(double.values())], expected).pvalue > REJECT


def test_constant_scores_are_random_masks():
    shapes = {"a": torch.Size((6, 5)), "b": torch.Size((4, 3, 2, 2))}
    counts = {"a": 11, "b": 20}
    scores = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for seed in range(3):
        want = random_masks(shapes, counts, seed)
        masks = select(scores, counts, seed)
        assert all(torch.equal(masks[name], want[name]) for name in shapes)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_random_subsets_are_uniform(k):
    drawn = Counter(chosen({"w": random_subset(torch.Size((2, 2)), k, stream(seed, "x"))}) for seed in range(300))
    assert set(drawn) == set(combinations(range(4), k))
    assert len(drawn) == 1 or subsets_p(drawn, len(drawn)) > REJECT


# Refusals ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_selected_is_said():
    scores = {"a": torch.rand(2, 3), "b": torch.rand(2, 2)}
    with pytest.raises(BadValue, match=r"^a: cannot choose 7 of 6 weights$"):
        select(scores, {"a": 7, "b": 1}, 0)
    with pytest.raises(BadValue, match=r"^cannot choose 11 of 10 weights$"):
        select(scores, 11, 0)
    within = {"a": torch.zeros(2, 3, dtype=torch.bool), "b": torch.ones(2, 2, dtype=torch.bool)}
    with pytest.raises(BadValue, match=r"^cannot choose 5 of 4 weights$"):
        select(scores, 5, 0, within=within, empty="allow")
    with pytest.raises(BadValue, match=r"^1 active weights are too few for 2 layers with at least one each$"):
        select(scores, 1, 0)
    with pytest.raises(BadValue, match=r"^the scores of b are NaN"):
        select({"a": torch.rand(2, 3), "b": torch.tensor([[0.0, torch.nan]])}, 2, 0)
    with pytest.raises(BadValue, match=r"no weight 'c' to mask \(known: a, b\)"):
        random_masks({"a": torch.Size((2, 3)), "b": torch.Size((2, 2))}, {"c": 1}, 0)
    with pytest.raises(BadValue, match=r"^a: cannot choose 7 of 6 weights"):
        random_masks({"a": torch.Size((2, 3))}, {"a": 7}, 0)
    with pytest.raises(BadValue, match=r"-1 of 6 weights"):
        random_subset(torch.Size((2, 3)), -1, stream(0, "x"))


@pytest.mark.parametrize("empty", ["one", "allow", "error"])
def test_budgets_and_masks_of_other_layers_are_refused(empty):
    scores = {"a": torch.rand(2, 3), "b": torch.rand(2, 2)}
    with pytest.raises(BadValue, match=r"no scores of 'c' \(there are: a, b\)"):
        select(scores, {"a": 1, "c": 1}, 0, empty=empty)
    with pytest.raises(BadValue, match=r"no mask of 'b' to stay within"):
        select(scores, 2, 0, within={"a": torch.ones(2, 3, dtype=torch.bool)}, empty=empty)
    within = {"a": torch.ones(3, 2, dtype=torch.bool), "b": torch.ones(2, 2, dtype=torch.bool)}
    with pytest.raises(BadValue, match=r"mask of a to stay within has shape \(3, 2\), its scores \(2, 3\)"):
        select(scores, {"a": 1, "b": 1}, 0, within=within, empty=empty)
