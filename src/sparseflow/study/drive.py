"""Carry out a list of runs into an output folder: what is finished is skipped, what was cut goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sparseflow.core import SparseflowError
from sparseflow.study.lock import locked
from sparseflow.study.pool import Event, run_pool
from sparseflow.study.run import Surroundings
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, Store


class Watcher(Protocol):
    """Sees a study go by; the command line draws its progress from this."""

    def begin(self, total: int, done: int) -> None: ...

    def event(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Tally:
    """How a study ended: runs in all, those executed now, and the errors of those that failed."""

    total: int
    executed: int
    failed: Mapping[str, str]


class Interrupted(SparseflowError):
    """The study was interrupted; it goes on where it stopped."""


def drive(
    runs: Iterable[RunSpec],
    out: Path,
    surroundings: Surroundings,
    jobs: int,
    watcher: Watcher,
    *,
    study: tuple[str, str, Mapping[str, Any]],
    finish: Callable[[Store], None] = lambda store: None,
) -> Tally:
    """Execute every run that the folder does not hold yet.

    Args:
        out: output folder; it holds `results.db` and is locked meanwhile.
        study: (name, kind, specification) entered into the store.
        finish: called at the end with the open store, also after an interrupt (to write the report of what is there).

    Raises:
        Busy, BadStore: if the folder cannot be had or used.
        Interrupted: after Ctrl-C, once the runs in flight have left their checkpoints.
    """
    wanted = list(runs)
    with locked(out):
        store = Store(out, create=True)
        try:
            store.put_study(*study)
            known = store.statuses()
            rest = [spec for spec in wanted if known.get(spec.name) not in DONE or _lacks_weights(spec, surroundings)]
            watcher.begin(len(wanted), len(wanted) - len(rest))
            failed: dict[str, str] = {}

            def handle(event: Event) -> None:
                _enter(store, event)
                if event.kind == "ended" and event.payload.status == "failed":
                    failed[event.spec.name] = event.payload.error
                watcher.event(event)

            interrupted = False
            try:
                if rest:
                    run_pool(rest, surroundings, jobs, handle)
            except KeyboardInterrupt:
                interrupted = True
            finish(store)
            if interrupted:
                left = sum(status not in DONE for status in _statuses(store, wanted))
                raise Interrupted(
                    f"stopped with {left} of {len(wanted)} runs to go; the same command goes on from here"
                )
            return Tally(len(wanted), len(rest), failed)
        finally:
            store.close()


def _lacks_weights(spec: RunSpec, surroundings: Surroundings) -> bool:
    """Whether the final network is to be kept and is not there: such a run is made again, bit for bit."""
    path = surroundings.final_path(spec.name)
    return path is not None and not path.is_file()


def _statuses(store: Store, wanted: list[RunSpec]) -> list[str | None]:
    known = store.statuses()
    return [known.get(spec.name) for spec in wanted]


def _enter(store: Store, event: Event) -> None:
    if event.kind == "started":
        store.start_run(event.spec)
    elif event.kind == "rows":
        store.put_metrics(event.spec.name, event.payload)
    else:
        store.put_result(event.spec, event.payload)
