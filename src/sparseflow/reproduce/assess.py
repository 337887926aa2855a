"""What came of an item: its table beside the paper's, its claims judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseflow.reproduce.agreement import TableAgreement, compare_tables
from sparseflow.reproduce.claims import Judged, judge
from sparseflow.reproduce.experiment import Experiment
from sparseflow.reproduce.items import Item
from sparseflow.reproduce.measured import Measured
from sparseflow.reproduce.printed import PaperTable
from sparseflow.reproduce.readers import readers
from sparseflow.reproduce.source import QUANTITIES, Observed, Source


@dataclass(frozen=True)
class Assessment:
    """An item held against finished studies.

    Attributes:
        table: None for an item without numbers in print.
    """

    item: Item
    table: TableAgreement | None
    claims: Sequence[Judged]


def assess(item: Item, experiment: Experiment, sources: Sequence[Source]) -> Assessment:
    """Read the item's table off the studies and judge what the paper claims of it."""
    printed = item.printed
    table = None
    if printed is not None and experiment.reads is not None:
        table = compare_tables(
            printed, measure(printed, experiment, sources), mixed=bool(experiment.options.get("mixed"))
        )

    def read(row: str, column: str) -> Measured | None:
        if table is None or not table.table.axes:
            return None
        places = [(tuple(r), tuple(c)) for r in table.table.rows for c in table.table.columns]
        cells = [cell for line in table.cells for cell in line]
        found = [cell for (r, c), cell in zip(places, cells, strict=True) if row in r and column in c]
        return found[0].measured if found else None

    runs = [run for source in sources for run in source.observed] if needs_runs(experiment) else []
    quantity = experiment.reads or "accuracy"
    if table is not None and quantity not in QUANTITIES:
        runs = [*runs, *_as_observed(table, experiment, quantity)]
    return Assessment(item, table, [judge(claim, runs, read, quantity) for claim in item.claims])


def _as_observed(table: TableAgreement, experiment: Experiment, quantity: str) -> list[Observed]:
    """The cells of a table whose numbers are of no single run, for claims that compare them."""
    return [
        Observed({axis: str(label) for axis, label in place.items()}, 0, {quantity: cell.measured.value})
        for places, line in zip(table.table.places(experiment.columns), table.cells, strict=True)
        for place, cell in zip(places, line, strict=True)
        if cell.measured is not None and cell.measured.is_number
    ]


def needs_runs(experiment: Experiment) -> bool:
    """Whether anything is trained for it; a table of settings is read from specifications."""
    reads = experiment.reads
    return bool(experiment.parts) and (reads is None or bool(readers.entry(reads).facts.get("runs", True)))


def measure(printed: PaperTable, experiment: Experiment, sources: Sequence[Source]) -> list[list[Measured | None]]:
    """Every cell of a paper's table as measured here, row by row.

    Raises:
        UnknownName: for a reader that does not exist.
    """
    assert experiment.reads is not None
    read = readers[experiment.reads]
    return [[read(sources, place) for place in row] for row in printed.places(experiment.columns)]
