"""Where an executor's work comes from: a list of runs, or a search that decides as results come in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sparseflow.study.lineage import predecessor
from sparseflow.study.run import RunResult
from sparseflow.study.spec import RunSpec
from sparseflow.study.surroundings import Surroundings


@dataclass(frozen=True)
class Task:
    """Runs that a worker carries out together (`study.groups`).

    Attributes:
        rungs: epochs at which each run stops unless its supply lets it go on.
    """

    runs: tuple[RunSpec, ...]
    rungs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Event:
    """What an executor reports of a run: "started", "rows" (measured values) or "ended" (with its result)."""

    kind: Literal["started", "rows", "ended"]
    spec: RunSpec
    payload: Any = None


class Supply(Protocol):
    """Gives out tasks; asked in the driver's process alone."""

    def take(self, in_hand: Collection[str]) -> Task | None:
        """The next task; None where there is none before others have ended.

        Args:
            in_hand: names of the runs that have been taken and have not ended.
        """
        ...

    @property
    def spent(self) -> bool:
        """Whether nothing more will come, however the runs in hand may end."""
        ...

    def goes_on(self, run: RunSpec, epoch: int, measured: Mapping[str, float]) -> bool:
        """Whether a run passes a rung, with what was last measured of it; asked again, the answer is the same."""
        ...

    def ended(self, run: RunSpec, result: RunResult) -> None:
        """Told of every run that has ended, after it is in the store."""
        ...


class Executor(Protocol):
    """Carries out what a supply gives out, and reports everything to `handle`, in the caller's process."""

    @property
    def jobs(self) -> int:
        """Tasks at a time."""
        ...

    def run(self, supply: Supply, surroundings: Surroundings, handle: Callable[[Event], None]) -> None: ...


class Listed:
    """Tasks in their order; each waits until no run is left to do that one of its own begins with."""

    def __init__(self, groups: Iterable[Sequence[RunSpec]]) -> None:
        self._tasks = [Task(tuple(group)) for group in groups]

    def take(self, in_hand: Collection[str]) -> Task | None:
        ahead = {run.name: task for task in self._tasks for run in task.runs}
        for task in self._tasks:
            before = [parent.name for parent in map(predecessor, task.runs) if parent is not None]
            if all(name not in in_hand and ahead.get(name, task) is task for name in before):
                self._tasks.remove(task)
                return task
        return None

    @property
    def spent(self) -> bool:
        return not self._tasks

    def goes_on(self, run: RunSpec, epoch: int, measured: Mapping[str, float]) -> bool:
        return True

    def ended(self, run: RunSpec, result: RunResult) -> None:
        pass
