"""What a report is made of."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A paragraph of plain words."""

    words: str
    kind: str = "text"


@dataclass(frozen=True)
class Value:
    """A table cell: what it shows, the colour behind it and what a reader sees when pointing at it."""

    text: str
    colour: str = ""
    hint: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A titled table with a caption; the first `labels` columns are row labels, `words` that cells hold sentences."""

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Value | str]]
    labels: int = 1
    folded: bool = False
    words: bool = False
    kind: str = "table"

    def values(self) -> list[list[Value]]:
        return [[v if isinstance(v, Value) else Value(v) for v in row] for row in self.rows]


@dataclass(frozen=True)
class Figure:
    """A titled figure with a caption: the SVG that the page shows, saved under `name` with its PDF and its rows."""

    title: str
    caption: str
    name: str
    svg: str
    folded: bool = False
    kind: str = "figure"


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """A headed part of the page."""

    heading: str
    blocks: Sequence[Block] = field(default_factory=list)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table; None and NaN become empty fields, floats keep every digit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([["" if v is None or v != v else v for v in row] for row in rows])
