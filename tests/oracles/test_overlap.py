"""The overlap of two masks against counting, and chance against every mask there is."""

from __future__ import annotations

from itertools import combinations, product
from math import sqrt

import pytest
import torch

from sparseflow.core import BadValue
from sparseflow.masks import overlap, random_masks, total_overlap


def mask(*active, of=6):
    found = torch.zeros(of, dtype=torch.bool)
    found[list(active)] = True
    return found.view(2, -1)


def test_counts_by_hand():
    (found,) = overlap({"w": mask(0, 1, 2)}, {"w": mask(1, 2, 3, 5)}).values()
    assert (found.weights, found.first, found.second, found.both) == (6, 3, 4, 2)
    assert found.jaccard == 2 / 5
    assert found.share_of_first == 2 / 3
    assert found.share_of_second == 2 / 4
    assert found.expected_share_of_first == pytest.approx(4 / 6)


@pytest.mark.parametrize(("first", "second"), list(product(range(7), range(7))))
def test_chance_is_the_mean_over_every_mask(first, second):
    counts = [len(set(chosen) & set(range(first))) for chosen in combinations(range(6), second)]
    mean = sum(counts) / len(counts)
    deviation = sqrt(sum((n - mean) ** 2 for n in counts) / len(counts))
    found = overlap({"w": mask(*range(first))}, {"w": mask(*range(second))})["w"]
    assert found.expected == pytest.approx(mean)
    assert found.deviation == pytest.approx(deviation, abs=1e-12)
    assert (found.deviations is None) == (deviation == 0)


def test_a_total_is_of_independent_layers():
    shapes = {"a": torch.Size((4, 5)), "b": torch.Size((6, 7))}
    one = random_masks(shapes, {"a": 7, "b": 9}, 0)
    layers = overlap(one, random_masks(shapes, {"a": 3, "b": 20}, 1))
    everything = total_overlap(layers)
    assert everything.weights == 62
    assert (everything.first, everything.second) == (16, 23)
    assert everything.both == sum(part.both for part in layers.values())
    assert everything.expected == pytest.approx(7 * 3 / 20 + 9 * 20 / 42)
    assert everything.deviation == pytest.approx(sqrt(sum(part.deviation**2 for part in layers.values())))


def test_random_masks_overlap_as_chance_says():
    shapes = {"w": torch.Size((40, 50))}
    first = random_masks(shapes, {"w": 200}, 0)
    z = [overlap(first, random_masks(shapes, {"w": 300}, seed))["w"].deviations for seed in range(1, 201)]
    assert abs(sum(z) / len(z)) < 4 / sqrt(len(z))
    assert 0.75 < sqrt(sum(v * v for v in z) / len(z)) < 1.25


def test_a_layer_that_one_mask_alone_has_is_dense_in_the_other():
    found = overlap({"a": mask(0, 1)}, {"b": mask(2)})
    assert (found["a"].first, found["a"].second, found["a"].both) == (2, 6, 2)
    assert (found["b"].first, found["b"].second, found["b"].both) == (6, 1, 1)


def test_empty_masks_and_other_shapes():
    nothing = overlap({"w": mask()}, {"w": mask()})["w"]
    assert (nothing.jaccard, nothing.share_of_first, nothing.share_of_second) == (1.0, 1.0, 1.0)
    with pytest.raises(BadValue, match=r"w has shape \(2, 3\) in the first mask and \(2, 2\) in the second"):
        overlap({"w": mask(0)}, {"w": mask(0, of=4)})
    with pytest.raises(BadValue, match="no masks to compare"):
        overlap({}, {})
