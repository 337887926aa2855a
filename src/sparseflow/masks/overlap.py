"""How much two masks agree, beside how much chance alone would make them agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sparseflow.core import BadValue, Masks


@dataclass(frozen=True)
class Overlap:
    """The active weights that two masks have in common, of one layer or of several together.

    Attributes:
        weights: entries of the layer.
        first, second: active weights of either mask.
        both: active in both.
        expected, deviation: mean and standard deviation of `both` for a uniformly random mask with as many active
            weights (of each layer) in the place of either: the hypergeometric distribution's.
    """

    weights: int
    first: int
    second: int
    both: int
    expected: float
    deviation: float

    @property
    def jaccard(self) -> float:
        """|A and B| / |A or B|; 1 for two empty masks."""
        either = self.first + self.second - self.both
        return self.both / either if either else 1.0

    @property
    def share_of_first(self) -> float:
        """|A and B| / |A|: the part of the first mask that is in the second; 1 for an empty first mask."""
        return self.both / self.first if self.first else 1.0

    @property
    def share_of_second(self) -> float:
        """|A and B| / |B|."""
        return self.both / self.second if self.second else 1.0

    @property
    def expected_share_of_first(self) -> float:
        """The share that chance alone gives, the second mask's density."""
        return self.expected / self.first if self.first else 1.0

    @property
    def deviations(self) -> float | None:
        """(both - expected) / deviation; None where chance has no choice (an empty or a full mask)."""
        return (self.both - self.expected) / self.deviation if self.deviation else None


def overlap(first: Masks, second: Masks) -> dict[str, Overlap]:
    """Weight name -> the overlap of the two masks of that layer; a layer that only one masks is dense in the other.

    Raises:
        BadValue: for masks of one name and two shapes, or no mask at all.
    """
    found = {}
    for name in dict.fromkeys((*first, *second)):
        a, b = first.get(name), second.get(name)
        if a is not None and b is not None and a.shape != b.shape:
            raise BadValue(f"{name} has shape {tuple(a.shape)} in the first mask and {tuple(b.shape)} in the second")
        found[name] = _of_layer(a, b)
    if not found:
        raise BadValue("there are no masks to compare")
    return found


def total(layers: Mapping[str, Overlap]) -> Overlap:
    """Of all layers together; by chance: random masks that keep each layer's number of active weights."""
    parts = layers.values()
    return Overlap(
        sum(part.weights for part in parts),
        sum(part.first for part in parts),
        sum(part.second for part in parts),
        sum(part.both for part in parts),
        sum(part.expected for part in parts),
        sqrt(sum(part.deviation**2 for part in parts)),
    )


def _of_layer(a: Tensor | None, b: Tensor | None) -> Overlap:
    given = a if a is not None else b
    assert given is not None
    full = torch.ones_like(given)
    a, b = (full if mask is None else mask.to(given.device) for mask in (a, b))
    n, one, two = given.numel(), int(a.count_nonzero()), int(b.count_nonzero())
    variance = one * two * (n - one) * (n - two) / (n * n * (n - 1)) if n > 1 else 0.0
    return Overlap(n, one, two, int((a & b).count_nonzero()), one * two / n, sqrt(variance))
