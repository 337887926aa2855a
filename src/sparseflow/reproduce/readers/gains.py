"""What one change of a training gains: tables of differences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sparseflow.reproduce.measured import Measured, Place, over_runs
from sparseflow.reproduce.readers.means import matching
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import Source, by_pair


@readers.add("gain", cite="003 Table 5")
def gain(sources: Sequence[Source], place: Place) -> Measured | None:
    """Points of test accuracy that a change gains, paired by seed and all other labels.

    Options: `axis` is what the table's changes are labels of, `without` the label of training without any.
    """
    if not sources:
        return None
    options = sources[0].experiment.options
    axis, without = str(options["axis"]), str(options["without"])
    with_it, plain = (
        by_pair(matching(sources, where), {axis}, "accuracy") for where in (place, {**place, axis: without})
    )
    differences = [fmean(with_it[key]) - fmean(plain[key]) for key in with_it if key in plain]
    found = over_runs(differences)
    if found is None:
        return None
    hint = f"{place[axis]} minus {without}, {found.n} pairs of runs of one seed"
    return Measured(found.value, found.spread, found.n, hint=hint, against=differences)
