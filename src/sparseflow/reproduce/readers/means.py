"""Means over runs: tables of accuracies and losses."""

from __future__ import annotations

from collections.abc import Sequence

from sparseflow.reproduce.measured import Measured, Place, over_runs
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import Observed, Source


def matching(sources: Sequence[Source], place: Place) -> list[Observed]:
    """The runs that a cell is about."""
    return [run for source in sources for run in source.observed if run.has(place)]


@readers.add("accuracy", cite="000 Tables 5, 7, 9, 11; 003 Tables 2 to 4; 004 Tables 1 and 5")
def accuracy(sources: Sequence[Source], place: Place) -> Measured | None:
    """Test accuracy of the last epoch in per cent, over all runs of the cell."""
    return over_runs([run.values["accuracy"] for run in matching(sources, place)])


@readers.add("loss", cite="000 Tables 6, 8, 10, 12")
def loss(sources: Sequence[Source], place: Place) -> Measured | None:
    """Test loss of the last epoch, over all runs of the cell."""
    return over_runs([run.values["loss"] for run in matching(sources, place)])
