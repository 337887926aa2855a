"""How far what was measured agrees with what a paper printed: never a verdict that the numbers do not carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

from scipy.stats import t as student

from sparseflow.reproduce.measured import Measured
from sparseflow.reproduce.printed import PaperTable, Printed
from sparseflow.stats import kendall_tau

LEVEL = 0.05
"""Of the papers' tests."""

CONFIDENCE = 0.95

Side = Literal["same side", "other side", "cannot tell"]


@dataclass(frozen=True)
class CellAgreement:
    """A printed cell beside the measured one.

    Attributes:
        side: of p-values, whether both are on the same side of 0.05; "" for another number. Pairs too few to reach
            0.05 at all cannot tell.
        difference, low, high: of other numbers, measured minus printed, with the interval of the measured mean
            (Student's t, 95 %); NaN where a single run gives none.
    """

    printed: Printed
    measured: Measured | None
    side: Side | Literal[""] = ""
    difference: float = nan
    low: float = nan
    high: float = nan


def agreement(printed: Printed, measured: Measured | None) -> CellAgreement:
    """A cell and its counterpart."""
    if measured is None or not printed.is_number or not measured.is_number:
        return CellAgreement(printed, measured)
    if measured.is_p:
        same = (printed.value < LEVEL) == (measured.value < LEVEL)
        side: Side = "cannot tell" if measured.smallest >= LEVEL else "same side" if same else "other side"
        return CellAgreement(printed, measured, side)
    difference = measured.value - printed.value
    reach = nan
    if measured.n > 1 and measured.spread == measured.spread:
        reach = float(student.ppf((1 + CONFIDENCE) / 2, measured.n - 1)) * measured.spread / sqrt(measured.n)
    return CellAgreement(printed, measured, "", difference, difference - reach, difference + reach)


@dataclass(frozen=True)
class TableAgreement:
    """A whole table.

    Attributes:
        cells: row by row, in the paper's order.
        by_column: heading -> (Kendall's tau between printed and measured numbers of the column, how many).
        tau, ranked: the same over all cells of one quantity; NaN where columns hold different ones, or too few cells.
    """

    table: PaperTable
    cells: Sequence[Sequence[CellAgreement]]
    by_column: dict[str, tuple[float, int]]
    tau: float
    ranked: int

    @property
    def compared(self) -> list[CellAgreement]:
        """Cells that have a number on both sides."""
        flat = [cell for row in self.cells for cell in row]
        return [c for c in flat if c.measured is not None and c.measured.is_number and c.printed.is_number]

    def sides(self) -> dict[str, int]:
        """How many p-values are on the same side, on the other, or cannot tell; empty for other tables."""
        found: dict[str, int] = {}
        for cell in self.compared:
            if cell.side:
                found[cell.side] = found.get(cell.side, 0) + 1
        return found


def compare_tables(
    table: PaperTable, measured: Sequence[Sequence[Measured | None]], *, mixed: bool = False
) -> TableAgreement:
    """The paper's table beside the measured one.

    Args:
        mixed: columns hold different quantities, whose order says nothing across columns.
    """
    cells = [
        [agreement(p, m) for p, m in zip(printed, row, strict=True)]
        for printed, row in zip(table.cells, measured, strict=True)
    ]
    by_column = {" ".join(heading): _tau([row[k] for row in cells]) for k, heading in enumerate(table.columns)}
    tau, ranked = (nan, 0) if mixed else _tau([cell for row in cells for cell in row])
    return TableAgreement(table, cells, by_column, tau, ranked)


def _tau(cells: Sequence[CellAgreement]) -> tuple[float, int]:
    pairs = [
        (c.printed.value, c.measured.value)
        for c in cells
        if c.measured is not None and c.measured.is_number and c.printed.is_number
    ]
    if len(pairs) < 3:
        return nan, len(pairs)
    return kendall_tau([a for a, _ in pairs], [b for _, b in pairs]), len(pairs)
