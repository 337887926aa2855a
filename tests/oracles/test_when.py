"""How many weights are active when: gradual, iterative and exponential schedules against their formulas."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sparseflow.core import BadValue
from sparseflow.masks import Gradual, exponential, next_round, random_masks, rounds_to, shuffled

SHAPES = {"a": torch.Size((20, 30)), "b": torch.Size((10, 7)), "c": torch.Size((1, 3))}
SIZES = {name: shape.numel() for name, shape in SHAPES.items()}
TOTAL = sum(SIZES.values())


def half_up(fraction: float, size: int) -> int:
    return int((Decimal(repr(fraction)) * size).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def counts_of(masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


# Gradual -----------------------------------------------------------------------------------------------------------

spans = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(1, 150))


def zhu_gupta(t: int, start: int, end: int, initial: float, final: float) -> float:
    """Their eq. 1, in sparsities: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3."""
    s_i, s_f = 1 - initial, 1 - final
    return 1 - (s_f + (s_i - s_f) * (1 - (t - start) / (end - start)) ** 3)


@settings(max_examples=100, deadline=None)
@given(spans, st.floats(0.001, 1.0), st.floats(0.0, 1.0))
@example((3000, 4000, 100), 0.05, 1.0)  # LeNet-5 of 004: 3000 to 7000
@example((5000, 3000, 2000), 0.2, 1.0)  # ResNet-50 of 004: the last interval is half of the others
def test_gradual_density_is_zhu_and_guptas(span, final, above):
    start, length, every = span
    initial = final + above * (1 - final)
    assume(initial <= 1)
    gradual = Gradual(start, start + length, every, initial)
    found = [gradual.density(t, final) for t in range(start + length + 3)]
    assert all(later <= earlier for earlier, later in pairwise(found))
    assert found[:start] == [initial] * start
    assert found[start + length :] == [final] * 3
    for t in range(start, start + length):
        assert found[t] == pytest.approx(zhu_gupta(t, start, start + length, initial, final), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(spans)
@example((10, 25, 10))  # not a multiple: 10, 20, 30 and 35
@example((10, 0, 10))
def test_gradual_pruning_is_due_every_so_many_steps_and_at_the_end(span):
    start, length, every = span
    gradual = Gradual(start, start + length, every)
    expected = {*range(start, start + length + 1, every), start + length}
    assert {t for t in range(start + length + 2 * every) if gradual.due(t)} == expected


@settings(max_examples=80, deadline=None)
@given(st.data(), spans, st.sampled_from([1.0, 0.7]))
def test_gradual_budgets_fall_to_the_final_one_exactly(data, span, initial):
    start, length, every = span
    gradual = Gradual(start, start + length, every, initial)
    each = {name: data.draw(st.integers(1, max(1, int(initial * n)))) for name, n in SIZES.items()}
    for final in (each, sum(each.values())):
        steps = [t for t in range(start + length + 1) if gradual.due(t)]
        budgets = [gradual.budget(t, final, SHAPES) for t in steps]
        assert budgets[-1] == final == gradual.budget(start + length + 7, final, SHAPES)
        layers = budgets if isinstance(final, dict) else [{"all": k} for k in budgets]
        assert all(later[name] <= earlier[name] for earlier, later in pairwise(layers) for name in earlier)
        assert all(k >= layers[-1][name] for found in layers for name, k in found.items())
        sizes = SIZES if isinstance(final, dict) else {"all": TOTAL}
        for t, found in zip(steps[:-1], layers, strict=False):
            for name, k in found.items():
                want = zhu_gupta(t, start, start + length, initial, layers[-1][name] / sizes[name]) * sizes[name]
                assert abs(k - want) <= 0.5 + 1e-6 or k == layers[-1][name]


def test_gradual_of_lenet_by_hand():
    gradual = Gradual(3000, 7000, 100)
    # Half way an eighth of what is to go is still there: 0.05 + 0.95 / 8.
    assert gradual.density(5000, 0.05) == pytest.approx(0.16875)
    assert gradual.budget(5000, {"w": 50}, {"w": torch.Size((10, 100))}) == {"w": 169}
    assert gradual.budget(0, 50, {"w": torch.Size((10, 100))}) == 1000
    assert sum(gradual.due(t) for t in range(8000)) == 41


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": 5, "end": 4}, "must end at or after its start, got start 5, end 4"),
        ({"start": -1, "end": 4}, "got start -1, end 4"),
        ({"start": 0, "end": 4, "every": 0}, "every .* must be at least 1, got 0"),
        ({"start": 0, "end": 4, "initial": 0.0}, r"initial density must be in \(0, 1\], got 0"),
        ({"start": 0, "end": 4, "initial": 1.5}, r"initial density must be in \(0, 1\], got 1.5"),
    ],
)
def test_gradual_refuses(settings, words):
    with pytest.raises(BadValue, match=words):
        Gradual(**settings)


def test_gradual_density_never_grows():
    with pytest.raises(BadValue, match=r"final density 0.6 exceeds the initial one, 0.5"):
        Gradual(0, 10, initial=0.5).density(3, 0.6)
    # A layer that is to keep more than the rest starts with, such as a dense one, is not touched.
    shapes = {"dense": torch.Size((10, 10)), "pruned": torch.Size((10, 10))}
    found = [Gradual(0, 10, initial=0.5).budget(t, {"dense": 100, "pruned": 10}, shapes) for t in (0, 5, 10)]
    assert found == [{"dense": 100, "pruned": k} for k in (50, 15, 10)]


# Exponential -------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 30))
def test_exponential_budgets_fall_by_one_factor_a_round(data, rounds):
    each = {name: data.draw(st.integers(0, n)) for name, n in SIZES.items()}
    for final in (each, sum(each.values())):
        found = [exponential(final, SHAPES, done, rounds) for done in range(1, rounds + 1)]
        assert found[-1] == final
        layers = found if isinstance(final, dict) else [{"all": k} for k in found]
        ends = layers[-1]
        sizes = SIZES if isinstance(final, dict) else {"all": TOTAL}
        for done, now in enumerate(layers[:-1], 1):
            for name, k in now.items():
                want = sizes[name] * (ends[name] / sizes[name]) ** (done / rounds)
                assert k == 1 if want < 0.5 else abs(k - want) <= 0.5 + 1e-6
        assert all(later[name] <= earlier[name] for earlier, later in pairwise(layers) for name in earlier)


def test_exponential_by_hand():
    """1000 weights to 1 in three rounds: 100, 10, 1."""
    shapes = {"w": torch.Size((10, 100))}
    assert [exponential(1, shapes, done, 3) for done in (1, 2, 3)] == [100, 10, 1]
    assert [exponential({"w": 1}, shapes, done, 3) for done in (1, 2, 3)] == [{"w": 100}, {"w": 10}, {"w": 1}]


# Rounds ------------------------------------------------------------------------------------------------------------


def trained(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def everything() -> dict[str, Tensor]:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}


def after(active: int, fraction: float, target: int) -> int:
    """What a round leaves: the rest of the fraction, one weight less at the least, never less than the target."""
    kept = int((Decimal(active) * (1 - Decimal(repr(fraction)))).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    return active if active <= target else max(target, min(kept, active - 1))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([0.2, 0.1, 0.9, 0.5, 0.05, 0.15]), st.booleans())
def test_a_round_removes_the_smallest_of_the_fraction(data, fraction, layerwise):
    each = {name: data.draw(st.integers(1, n)) for name, n in SIZES.items()}
    target = each if layerwise else sum(each.values())
    masks, rounds = everything(), 0
    while counts_of(masks) != target and sum(counts_of(masks).values()) != target:
        weights = trained(rounds)  # trained anew: weights that were removed have values again
        new = next_round(weights, masks, fraction, target=target, layerwise=layerwise, empty="allow")
        assert all(not (new[name] & ~mask).any() for name, mask in masks.items()), "a weight came back"
        now, left = counts_of(masks), counts_of(new)
        if layerwise:
            assert left == {name: after(k, fraction, each[name]) for name, k in now.items()}
        else:
            assert sum(left.values()) == after(sum(now.values()), fraction, target)
        for group in SHAPES if layerwise else [None]:
            inside = [group] if group else list(SHAPES)
            kept = torch.cat([weights[n].abs()[new[n]] for n in inside])
            gone = torch.cat([weights[n].abs()[masks[n] & ~new[n]] for n in inside])
            assert not len(gone) or not len(kept) or kept.min() >= gone.max()
        masks, rounds = new, rounds + 1
        assert rounds < 200
    if not layerwise:
        density = target / TOTAL
        assert rounds_to(density, fraction, TOTAL) == rounds
    again = next_round(trained(99), masks, fraction, target=target, layerwise=layerwise, empty="allow")
    assert all(torch.equal(again[name], masks[name]) for name in masks)


def test_rounds_of_a_network_of_266200_weights():
    """Rounds of Frankle & Carbin 2019 are named by what remains of LeNet-300-100: 0.8^n."""
    shapes = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    draw = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    percent = []
    for _ in range(15):
        masks = next_round(weights, masks, target=1)
        percent.append(round(100 * sum(counts_of(masks).values()) / 266_200, 1))
    assert [percent[k - 1] for k in (3, 7, 8, 9, 15)] == [51.2, 21.0, 16.8, 13.4, 3.5]
    assert [rounds_to(d) for d in (1.0, 0.8, 0.79, 0.64, 0.0352, 0.05)] == [0, 1, 2, 2, 15, 14]


def test_a_layer_that_a_round_would_empty_keeps_one():
    weights = {"a": torch.full((1, 4), 0.1), "b": torch.full((3, 4), 1.0)}
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    one = next_round(weights, masks, 0.5, target=4)
    assert counts_of(one) == {"a": 1, "b": 7}
    assert counts_of(next_round(weights, masks, 0.5, target=4, empty="allow")) == {"a": 0, "b": 8}
    with pytest.raises(BadValue, match="leave none for a"):
        next_round(weights, masks, 0.5, target=4, empty="error")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, torch.nan])
def test_a_round_refuses_a_fraction_outside_of_0_and_1(fraction):
    with pytest.raises(BadValue, match=r"fraction that a round removes must be in \(0, 1\)"):
        next_round(trained(0), everything(), fraction, target=5)
    with pytest.raises(BadValue, match=r"fraction that a round removes must be in \(0, 1\)"):
        rounds_to(0.5, fraction)


def test_a_round_refuses_a_target_of_the_other_kind_and_unknown_layers():
    with pytest.raises(BadValue, match="a layerwise round needs the target of each layer"):
        next_round(trained(0), everything(), target=5, layerwise=True)
    with pytest.raises(BadValue, match="a global one the number of all"):
        next_round(trained(0), everything(), target={"a": 5, "b": 5, "c": 1})
    with pytest.raises(BadValue, match=r"no target for c"):
        next_round(trained(0), everything(), target={"a": 5, "b": 5}, layerwise=True)
    weights = trained(0)
    del weights["b"]
    with pytest.raises(BadValue, match=r"no weights for b"):
        next_round(weights, everything(), target=5)
    with pytest.raises(BadValue, match=r"density must be in \(0, 1\]"):
        rounds_to(0.0)


# Random tickets ----------------------------------------------------------------------------------------------------


def test_shuffled_keeps_counts_and_moves_everything_else():
    masks = random_masks(SHAPES, {"a": 60, "b": 7, "c": 1}, seed=0)
    for seed in range(4):
        new = shuffled(masks, seed)
        assert list(new) == list(masks)
        assert counts_of(new) == counts_of(masks)
        assert all(new[name].shape == SHAPES[name] and new[name].dtype is torch.bool for name in masks)
        assert torch.equal(new["a"], shuffled(masks, seed)["a"])
        # Independent of the mask, also one that was drawn with the same seed: 60 * 60 / 600 = 6 stay by chance.
        assert int((new["a"] & masks["a"]).sum()) < 20
    assert not torch.equal(shuffled(masks, 0)["a"], shuffled(masks, 1)["a"])


@pytest.mark.parametrize("seed_of_mask", [None, 0])
def test_shuffled_is_uniform(seed_of_mask):
    """Also where the mask was itself drawn with the seed of the shuffle."""
    shape, fixed = {"w": torch.Size((2, 3))}, torch.tensor([[True, True, False], [False, False, False]])
    drawn: Counter[tuple[int, ...]] = Counter()
    stayed = 0
    for seed in range(1000):
        mask = {"w": fixed} if seed_of_mask is None else random_masks(shape, {"w": 2}, seed)
        new = shuffled(mask, seed)["w"]
        drawn[tuple(new.flatten().nonzero().flatten().tolist())] += 1
        stayed += torch.equal(new, mask["w"])
    assert set(drawn) == set(combinations(range(6), 2))
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-4
    assert stats.binomtest(stayed, 1000, 1 / 15).pvalue > 1e-4
