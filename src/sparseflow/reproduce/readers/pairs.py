"""Tables of capacity-matched comparisons: p-values and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sparseflow.measure import MEASURES
from sparseflow.reproduce.measured import Measured, Place, agrees
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import Source
from sparseflow.study import CellResult, kendall_rows

_OUTCOMES = {"Test Loss": "test_loss", "Test Accuracy": "test_accuracy"}


@readers.add("p-value", cite="001 eq. 3.4; 000 Table 3, 001 Tables 3.3, A.1 to A.3")
def p_value(sources: Sequence[Source], place: Place) -> Measured | None:
    """The one-sided Wilcoxon p-value of a cell, exact; its normal approximation beside it."""
    found = [(source, cell) for source in sources for cell in source.cells if agrees(source.cell_labels(cell), place)]
    if len(found) > 1:
        names = ", ".join(cell.cell.label for _, cell in found)
        raise ValueError(f"several cells stand for {dict(place)}: {names}")
    cell = found[0][1] if found else None
    if cell is None or cell.exact is None or cell.normal is None:
        return None
    exact, normal, counted = cell.exact, cell.normal, len(cell.complete)
    hint = f"W+ = {exact.statistic:g}, {counted} pairs, normal approximation {normal.p_value:.3g}{_diverged(cell)}"
    return Measured(exact.p_value, n=counted, hint=hint, smallest=exact.smallest_p, normal=normal.p_value)


def _diverged(cell: CellResult) -> str:
    many = cell.count("sparse", "diverged") + cell.count("dense", "diverged")
    return f", {many} diverged runs" if many else ""


@readers.add("tau", cite="001 Table 3.1; 000 Tables 1 and 4")
def tau(sources: Sequence[Source], place: Place) -> Measured | None:
    """Average |Kendall tau| of a measure with test loss or accuracy along training, over all trainings."""
    measure, member = place["Measure"].replace("EGF", "egf"), place["Density"].lower()
    if measure not in MEASURES:
        raise ValueError(f"no measure {place['Measure']!r}")
    rows = []
    for source in sources:
        if agrees(source.called({}), place):
            every = kendall_rows([r.cell for r in source.cells], source.cells, source.series, [measure])
            rows += [
                row.average
                for row in every
                if (row.kind, row.member, row.outcome) == ("along training", member, _OUTCOMES[place["Outcome"]])
            ]
    counted = sum(average.counted for average in rows)
    if not counted:
        return None
    mean = fmean([a.mean for a in rows if a.counted], weights=[a.counted for a in rows if a.counted])
    constant = sum(average.constant for average in rows)
    return Measured(mean, n=counted, hint=f"{counted} trainings; {constant} without a tau, their series are constant")
