"""A cell of a paper's table, measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from sparseflow.stats import summary

QUANTITY = "Quantity"
"""The axis by which a table tells apart the several quantities in its cells."""


@dataclass(frozen=True)
class Measured:
    """What was measured for one cell.

    Attributes:
        value: in the paper's units; NaN where it is a text, or nothing has ended.
        spread, n: one standard deviation over so many runs; NaN and 1 for a single number.
        text: shown in place of the number, where the cell is no number.
        hint: what a reader sees when pointing at it.
        smallest: of a p-value, the smallest that its pairs can reach; NaN for another number.
        normal: of a p-value, its normal approximation, which the papers print.
        against: of a difference of paired runs, the differences.
    """

    value: float = nan
    spread: float = nan
    n: int = 1
    text: str = ""
    hint: str = ""
    smallest: float = nan
    normal: float = nan
    against: Sequence[float] = ()

    @property
    def is_p(self) -> bool:
        return self.smallest == self.smallest

    @property
    def is_number(self) -> bool:
        return self.value == self.value


Place = Mapping[str, Any]
"""Axis -> label: where a cell stands in a table."""


def agrees(labels: Place, place: Place) -> bool:
    """Whether no label contradicts the place; axes without a label say nothing."""
    return all(labels.get(axis, label) == label for axis, label in place.items())


def over_runs(values: Sequence[float], hint: str = "") -> Measured | None:
    """Mean and deviation of one number per run; None without any."""
    if not values:
        return None
    found = summary(values)
    return Measured(found.mean, found.std if found.n > 1 else nan, found.n, hint=hint)
