"""A table as a paper printed it: its labels, its cells and their order."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?([eE][-+]?\d+)?")
_LEVELS = " | "
"""Between the levels of a column's heading, in the files."""


@dataclass(frozen=True)
class Printed:
    """One cell.

    Attributes:
        text: as printed; empty where the paper has none.
        value, spread: the number and what follows a ±, in the paper's units; NaN where there is none.
    """

    text: str
    value: float = nan
    spread: float = nan

    @classmethod
    def read(cls, text: str) -> Printed:
        """A cell of the files: "0.006", "52.30 ± 0.15", words, or nothing."""
        parts = [part.strip().rstrip("%MK").strip() for part in text.split("±")]
        if not all(_NUMBER.fullmatch(part) for part in parts) or len(parts) > 2:
            return cls(text.strip())
        numbers = [float(part.replace(",", "").replace("−", "-")) for part in parts]
        return cls(text.strip(), *numbers)

    @property
    def is_number(self) -> bool:
        return self.value == self.value

    @property
    def precision(self) -> float:
        """Half a unit of the last printed digit: what rounding alone may differ by."""
        digits = self.text.split("±")[0].strip().rstrip("%MK")
        return 0.5 * 10.0 ** -len(digits.partition(".")[2]) if self.is_number else nan


@dataclass(frozen=True)
class PaperTable:
    """Rows and columns in the paper's order.

    Attributes:
        axes: what labels the rows, outermost first.
        rows: a label for every axis.
        columns: headings, a text for every level.
        cells: of every row, one for every column.
    """

    axes: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Printed, ...], ...]

    @classmethod
    def read(cls, path: Path) -> PaperTable:
        """From a CSV file in which the headings of label columns end in a colon.

        Raises:
            ValueError: naming the line, for a row of another length than the header.
        """
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file))
        labels = sum(name.endswith(":") for name in header)
        for number, line in enumerate(lines, 2):
            if len(line) != len(header):
                raise ValueError(f"{path.name}, line {number}: {len(line)} fields under {len(header)} headings")
        return cls(
            tuple(name.rstrip(":") for name in header[:labels]),
            tuple(tuple(line[:labels]) for line in lines),
            tuple(tuple(name.split(_LEVELS)) for name in header[labels:]),
            tuple(tuple(map(Printed.read, line[labels:])) for line in lines),
        )

    @cached_property
    def numbers(self) -> list[Printed]:
        """The cells that are numbers, row by row."""
        return [cell for row in self.cells for cell in row if cell.is_number]

    def places(self, column_axes: Sequence[str]) -> list[list[dict[str, str]]]:
        """For every cell, what its row and its column say: axis -> label.

        Args:
            column_axes: what the levels of the columns' headings are labels of.
        """
        found = []
        for row in self.rows:
            own = dict(zip(self.axes, row, strict=True))
            found.append([own | dict(zip(column_axes, column, strict=True)) for column in self.columns])
        return found
