"""What `sparseflow compare` and `search` carry out, whatever kind of study it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sparseflow.study import Estimator, FactsOf, Programme, RunSpec, Store
from sparseflow.study.likened import Counting

Compare = Callable[[Store, Path, Counting], bool]


@dataclass(frozen=True)
class Asked:
    """A comparison that is ready to be carried out.

    Attributes:
        title, size: what it is called, and how large it is ("8 cells, 240 runs").
        programme: what it does.
        expected: every run that it will take, as far as one can tell before the first.
        place: what a person knows a run by, if by anything; runs of one place are averaged.
        compare: its networks, when all runs have ended, told (store, folder, counting); whether it found anything.
        split: whose accuracy tells how good a place is.
        study: (name, kind, specification) for the store.
        overview: the table of a dry run, from an estimator that has timed the runs.
    """

    title: str
    size: str
    programme: Programme
    expected: Sequence[RunSpec]
    place: Callable[[RunSpec], str | None]
    study: tuple[str, str, Mapping[str, Any]]
    facts: FactsOf
    notes: Sequence[str]
    overview: Callable[[Estimator], Table]
    compare: Compare | None = None
    split: str = "test"


def overview_table(title: str) -> Table:
    """An empty table of a dry run."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)
