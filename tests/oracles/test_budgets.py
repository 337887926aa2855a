"""How many weights each layer keeps, against exact rational arithmetic and an independent solution of the shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import ROUND_HALF_UP, Decimal
from math import prod

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, Shapes
from sparseflow.masks import count, round_half_up
from zoo import BY_HAND, ZOO, shapes_of, total_of

DENSITIES = (0.5, 0.1, 0.05, 0.02, 0.005)

PROPORTIONS = {
    # Mocanu et al. 2018, eq. 1, as Evci et al. 2020 use it: channels only.
    "er": lambda shape: (shape[0] + shape[1]) / (shape[0] * shape[1]),
    # Evci et al. 2020, sec. 3: 1 - (n_{l-1} + n_l + w + h) / (n_{l-1} n_l w h) is the sparsity, up to a factor.
    "erk": lambda shape: sum(shape) / prod(shape),
}
"""Budget -> the layer density that its paper asks for, up to one common factor."""


def half_up(density: float, size: int) -> int:
    """density * size, halves up, in decimal arithmetic."""
    return int((Decimal(repr(density)) * size).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def filled(shapes: Shapes, target: float, proportions: Mapping[str, float], dense: Collection[str] = ()) -> dict:
    """Real numbers of weights by bisection on the one factor e of min(1, e * proportion): no rounds of clamping."""

    def at(e: float) -> dict[str, float]:
        return {n: s.numel() * (1.0 if n in dense else min(1.0, e * proportions[n])) for n, s in shapes.items()}

    low, high = 0.0, 1.0 / min(proportions.values())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) < target else (low, middle)
    return at(high)


def check_shares(counts: Mapping[str, int], quotas: Mapping[str, float], target: int) -> None:
    """The counts sum to the target, and are the quotas rounded to the side that their remainders say."""
    assert sum(counts.values()) == target
    ones = {name for name, quota in quotas.items() if quota < 1}  # rounded up to one weight, others pay for it
    fuzz = 1e-4
    up, down = [], []
    for name, quota in quotas.items():
        if name in ones:
            assert counts[name] == 1, name
            continue
        assert quota - 1 - fuzz < counts[name] < quota + 1 + fuzz or ones, (name, counts[name], quota)
        if abs(counts[name] - quota) > fuzz:
            (up if counts[name] > quota else down).append(quota % 1)
    if up and down and not ones:
        assert min(up) > max(down) - fuzz, "a smaller remainder was rounded up"


# Tables ------------------------------------------------------------------------------------------------------------


def test_tables_written_by_hand_have_the_networks_known_numbers_of_weights():
    """Published parameter counts less biases and batch norm: 25,557,032 of ResNet-50, 4,231,976 of MobileNet ..."""
    assert {name: total_of(shapes_of(name)) for name in BY_HAND} == {
        "VGG-16": 14_710_464 + 5_120,
        "ResNet-50": 25_557_032 - 1_000 - 53_120,
        "WRN-28-10": 36_479_194 - 10 - 17_952,
        "MobileNet": 4_231_976 - 1_000 - 21_888,
    }
    assert len(shapes_of("ResNet-50")) == 54


# Rounding ----------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 6), st.integers(1, 10**8))
@example(15, 2, 50)  # 0.15 of 50 is 7.5, the double below it 7.4999...
@example(5, 1, 3)
def test_rounding_is_half_up_of_the_decimal_that_was_written(digits, places, total):
    density = float(f"{digits}e-{places}") if digits <= 10**places else 1.0
    assert round_half_up(density, total) == max(1, half_up(density, total))
    assert round_half_up(density, total, 0) == half_up(density, total)


# Every budget on every network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", ZOO)
def test_uniform_rounds_every_layer_by_itself(network, density):
    shapes = shapes_of(network)
    want = {name: half_up(density, shape.numel()) for name, shape in shapes.items()}
    assert count("uniform", shapes, density) == {name: max(1, k) for name, k in want.items()}
    assert count("uniform", shapes, density, empty="allow") == want
    assert count("global", shapes, density) == half_up(density, total_of(shapes))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", ZOO)
@pytest.mark.parametrize("budget", PROPORTIONS)
def test_shares_are_those_of_the_one_factor_that_meets_the_target(budget, network, density):
    shapes = shapes_of(network)
    proportions = {name: PROPORTIONS[budget](shape) for name, shape in shapes.items()}
    target = half_up(density, total_of(shapes))
    check_shares(count(budget, shapes, density), filled(shapes, target, proportions), target)
    first = next(iter(shapes))
    if target - shapes[first].numel() >= len(shapes):
        counts = count(budget, shapes, density, {first})
        check_shares(counts, filled(shapes, target, proportions, {first}), target)
        assert counts[first] == shapes[first].numel()


ERK_DENSE_OF_RESNET_50 = {
    0.5: [
        "conv1",
        *(f"stage1.0.{layer}" for layer in ("conv1", "conv2", "conv3", "shortcut")),
        *(f"stage1.{block}.conv{k}" for block in (1, 2) for k in (1, 2, 3)),
        *(f"stage2.0.{layer}" for layer in ("conv1", "conv3", "shortcut")),
        *(f"stage2.{block}.conv{k}" for block in (1, 2, 3) for k in (1, 3)),
        *(f"stage3.{block}.conv{k}" for block in range(6) for k in (1, 3)),
    ],
    0.1: ["stage1.0.conv1"],
    0.05: [],
}
"""Density -> its dense layers; all others have less than all of their weights."""


@pytest.mark.parametrize("density", ERK_DENSE_OF_RESNET_50)
def test_erk_meets_the_density_on_resnet_50_with_these_layers_dense(density):
    shapes = shapes_of("ResNet-50")
    target = half_up(density, 25_502_912)
    counts = count("erk", shapes, density)
    assert sum(counts.values()) == target
    expected = [f"{name}.weight" for name in ERK_DENSE_OF_RESNET_50[density]]
    assert [name for name, k in counts.items() if k == shapes[name].numel()] == expected
    quotas = filled(shapes, target, {name: PROPORTIONS["erk"](shape) for name, shape in shapes.items()})
    assert [name for name, quota in quotas.items() if quota >= shapes[name].numel()] == expected


@pytest.mark.parametrize(("network", "density", "missed"), [("ResNet-50", 0.5, 0.0696), ("MobileNet", 0.1, 0.0174)])
def test_clamping_without_solving_again_misses_the_density(network, density, missed):
    """Why layers are filled up in rounds: densities cut off at 1 keep far fewer weights than asked for."""
    shapes = shapes_of(network)
    total, proportions = total_of(shapes), {name: PROPORTIONS["erk"](shape) for name, shape in shapes.items()}
    factor = density * total / sum(proportions[name] * shape.numel() for name, shape in shapes.items())
    clamped = sum(min(1.0, factor * proportions[name]) * shape.numel() for name, shape in shapes.items())
    assert density - clamped / total == pytest.approx(missed, abs=1e-4)
    assert sum(count("erk", shapes, density).values()) == half_up(density, total)


def test_er_by_hand():
    """300-100 perceptron on 784 inputs: er and erk are the same there, (in + out) / (in * out) up to a factor."""
    shapes = {"a": torch.Size((300, 784)), "b": torch.Size((100, 300)), "c": torch.Size((10, 100))}
    # e * (1084 + 400 + 110) = 26,620 with e = 16.70: the last layer would have 1,837 of 1,000 and becomes dense;
    # then e = (26,620 - 1,000) / 1,484 = 17.264..., 18,714.4 and 6,905.7 weights.
    expected = {"a": 18_714, "b": 6_906, "c": 1_000}
    assert count("er", shapes, 0.1) == count("erk", shapes, 0.1) == expected
    # A kernel changes erk alone: (4 + 2) / 8 and (4 + 2 + 6) / 72 against (8 + 4) / 32.
    shapes = {"conv": torch.Size((4, 2, 3, 3)), "fc": torch.Size((8, 4))}
    assert count("er", shapes, 0.25) == {"conv": 21, "fc": 5}  # 26 weights at 72 * 3/4 : 32 * 3/8 = 54 : 12
    assert count("erk", shapes, 0.25) == {"conv": 13, "fc": 13}  # 12 : 12


def test_smart_ratios_by_hand():
    """Su et al. 2020, sec. 4: (L - l + 1)^2 + (L - l + 1) for l = 1 ... L - 1, and 0.3 of the last layer."""
    shapes = {
        name: torch.Size(size) for name, size in {"a": (10, 10), "b": (20, 10), "c": (10, 40), "d": (5, 20)}.items()
    }
    # 160 of 800, of which 30 go to the last layer; the densities of the others are as 20 : 12 : 6, so that their
    # numbers are as 2000 : 2400 : 2400, of 6800: 38.2, 45.9 and 45.9 of 130.
    assert count("smart-ratios", shapes, 0.2) == {"a": 38, "b": 46, "c": 46, "d": 30}
    assert count("smart-ratios", shapes, 0.2, last=0.5) == {"a": 32, "b": 39, "c": 39, "d": 50}  # 32.4, 38.8, 38.8
    # At 0.6 the first layer would have 2000 / 6800 * 450 = 132 of its 100: dense, 175 for each of the two others.
    assert count("smart-ratios", shapes, 0.6) == {"a": 100, "b": 175, "c": 175, "d": 30}
    # All of the others together hold 700 weights; what the target asks beyond them goes to the last layer.
    assert count("smart-ratios", shapes, 0.95) == {"a": 100, "b": 200, "c": 400, "d": 60}


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("network", BY_HAND)
def test_smart_ratios_on_real_networks(network, density):
    shapes = shapes_of(network)
    *names, output = shapes
    target = half_up(density, total_of(shapes))
    last = min(0.3, density)
    own = half_up(last, shapes[output].numel())
    depth = len(shapes)
    proportions = {name: float((depth - k + 1) ** 2 + (depth - k + 1)) for k, name in enumerate(names, 1)}
    counts = count("smart-ratios", shapes, density, last=last)
    assert counts.pop(output) == own
    check_shares(counts, filled({n: shapes[n] for n in names}, target - own, proportions), target - own)


def test_vector_by_order_and_by_name():
    shapes = {name: torch.Size(size) for name, size in {"a": (10, 5), "b": (3, 7), "c": (2, 2)}.items()}
    expected = {"a": 8, "b": 21, "c": 1}  # 7.5 goes up; 0.4 is one weight
    assert count("vector", shapes, [0.15, 1.0, 0.1]) == expected
    assert count("vector", shapes, (0.15, 1, 0.1)) == expected
    assert count("vector", shapes, {"c": 0.1, "a": 0.15, "b": 1.0}) == expected
    assert count("vector", shapes, [0.15, 1.0, 0.1], empty="allow") == {**expected, "c": 0}
    assert count("vector", shapes, {"a": 0.15, "c": 0.1}, {"b"}) == expected
    assert count("vector", shapes, [0.15, 0.2, 0.1], {"b"}) == expected


# Any shapes --------------------------------------------------------------------------------------------------------

small_shapes = st.lists(
    st.lists(st.integers(1, 9), min_size=2, max_size=4).map(torch.Size), min_size=1, max_size=8
).map(lambda found: {f"layer{k}": shape for k, shape in enumerate(found)})


@settings(max_examples=300, deadline=None)
@given(st.data(), small_shapes, st.sampled_from(sorted(PROPORTIONS)), st.sampled_from([0, 1]))
def test_shares_of_any_shapes_with_any_layers_dense(data, shapes, budget, least):
    dense = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    density = data.draw(st.floats(0.001, 1.0))
    target = max(1, half_up(density, total_of(shapes)))
    fixed = sum(shapes[name].numel() for name in dense)
    how = "one" if least else "allow"
    if not fixed + least * (len(shapes) - len(dense)) <= target or (len(dense) == len(shapes) and fixed != target):
        with pytest.raises(BadValue, match=f"^{target:,} active weights cannot be shared"):
            count(budget, shapes, density, dense, empty=how)
        return
    counts = count(budget, shapes, density, dense, empty=how)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == target
    proportions = {name: PROPORTIONS[budget](shape) for name, shape in shapes.items()}
    quotas = filled(shapes, target, proportions, dense)
    taken = sum(least > quota for quota in quotas.values())
    for name, k in counts.items():
        assert least <= k <= shapes[name].numel()
        if name in dense:
            assert k == shapes[name].numel()
        elif k > least:  # within one of its share, but for what it gives to layers that would have none
            assert quotas[name] - 1 - taken - 1e-6 < k < quotas[name] + 1 + 1e-6


@settings(max_examples=100, deadline=None)
@given(small_shapes, st.sampled_from(sorted(PROPORTIONS)), st.floats(0.2, 0.9), st.floats(0.01, 0.1))
def test_a_larger_density_takes_no_weight_from_any_layer_but_by_rounding(shapes, budget, density, more):
    fewer, larger = (count(budget, shapes, d, empty="allow") for d in (density, density + more))
    assert all(fewer[name] <= larger[name] + 1 for name in shapes)
