"""What the analyses of finished runs have in common: the networks, the folder, what is there already, the interrupt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparseflow.cli.progress import Reading
from sparseflow.cli.setup import surroundings_for
from sparseflow.study import DataCache, Finished, Group, Interrupted, Loaded, PartFile, find_groups, reload
from sparseflow.study.fingerprint import fingerprint
from sparseflow.study.lock import locked


@dataclass(frozen=True)
class Where:
    """What all these commands are told."""

    names: Sequence[str]
    out: Path | None = None
    data_root: str | None = None
    device: str = "cpu"


class Networks:
    """Finished runs found by their names, and their networks."""

    def __init__(self, console: Console, where: Where) -> None:
        self._where = where
        self.groups: list[Group] = find_groups(where.names)
        self._watch = Reading(console)
        around = surroundings_for(Path(), where.data_root, where.device, 0.0, keep=False)
        self._cache = DataCache(around, self._watch)

    @property
    def runs(self) -> list[Finished]:
        """All of them, in the order of the command line."""
        return [run for group in self.groups for run in group.runs]

    def load(self, runs: Iterable[Finished] | None = None) -> list[Loaded]:
        """Of these runs, or of all; runs on the same data share them."""
        with self._watch:
            return [reload(run, self._cache, self._where.device) for run in (self.runs if runs is None else runs)]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._where.device, torch.get_num_threads())

    @contextmanager
    def folder(self, analysis: str) -> Iterator[PartFile]:
        """The output folder, locked, with the parts that it holds; an interrupt is said in one sentence.

        Raises:
            Interrupted: on Ctrl-C.
        """
        first = re.sub(r"[^\w.@#-]+", "-", self.groups[0].label)
        out = self._where.out or Path("runs") / f"{analysis}-{first}"
        with locked(out):
            parts = PartFile(out)
            try:
                yield parts
            except KeyboardInterrupt:
                raise Interrupted("interrupted; the same command goes on with what is there") from None
            finally:
                parts.close()


def show(console: Console, header: Sequence[str], rows: Iterable[Sequence[str]], page: Path) -> None:
    """Print a table and where its page is."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(header):
        table.add_column(column, justify="right" if number else "left")
    for cells in rows:
        table.add_row(*map(escape, cells))
    console.print(table)
    console.print(f"report: {page}")
