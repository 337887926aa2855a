"""Carry out a list of runs into an output folder: what is finished is skipped, what was cut goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sparseflow.core import BadStore, SparseflowError
from sparseflow.study.finding import with_predecessors
from sparseflow.study.groups import grouped
from sparseflow.study.lock import locked
from sparseflow.study.pool import Event, run_pool
from sparseflow.study.run import Surroundings
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, Store
from sparseflow.train import checkpoint


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
    data_digest: str,
    shape: tuple[tuple[int, ...], int],
    finish: Callable[[Store], None] = lambda store: None,
) -> Tally:
    """Execute every run that the folder does not hold yet, and those that must come before it.

    Args:
        out: output folder; it holds `results.db` and is locked meanwhile.
        study: (name, kind, specification) entered into the store.
        data_digest: of the data set that the runs train on.
        shape: of its examples, and its number of classes, by which runs are trained together (`study.groups`).
        finish: called at the end with the open store, also after an interrupt (to write the report of what is there).

    Raises:
        Busy, BadStore: if the folder cannot be had or used, holds another kind of study, or runs made on other data.
        Interrupted: after Ctrl-C, once the runs in flight have left their checkpoints.
    """
    wanted = with_predecessors(runs)
    with locked(out):
        store = Store(out, create=True)
        try:
            _check_same(store, study[1], wanted, data_digest)
            store.put_study(*study)
            if surroundings.checkpoints is not None:
                checkpoint.sweep(surroundings.checkpoints)
            known = store.statuses()
            rest = [spec for spec in wanted if known.get(spec.name) not in DONE or _lacks_weights(spec, surroundings)]
            watcher.begin(len(wanted), len(wanted) - len(rest))
            failed: dict[str, str] = {}

            def handle(event: Event) -> None:
                _enter(store, event, surroundings)
                if event.kind == "ended" and event.payload.status == "failed":
                    failed[event.spec.name] = event.payload.error
                watcher.event(event)

            interrupted = False
            try:
                if rest:
                    run_pool(grouped(rest, jobs, *shape), surroundings, jobs, handle)
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
    """Whether weights that are to be kept are not there: such a run is made again, bit for bit."""
    return any(not path.is_file() for path in surroundings.kept_paths(spec))


def _statuses(store: Store, wanted: list[RunSpec]) -> list[str | None]:
    known = store.statuses()
    return [known.get(spec.name) for spec in wanted]


def _check_same(store: Store, kind: str, wanted: list[RunSpec], data_digest: str) -> None:
    """One folder, one kind of study, one data set: a report of mixed ones would tell neither apart."""
    others = {other for _, other, _ in store.studies()} - {kind}
    if others:
        raise BadStore(f"{store.label} holds a study of kind {others.pop()!r}; give this one another --out")
    names = {spec.name for spec in wanted}
    made_on = {r["data_digest"] for name, r in store.results().items() if name in names and r["data_digest"]}
    if made_on - {data_digest}:
        raise BadStore(
            f"{store.label} holds runs of this study made on other data (digest {', '.join(sorted(made_on))}, "
            f"now {data_digest}); give another --out"
        )


def _enter(store: Store, event: Event, surroundings: Surroundings) -> None:
    if event.kind == "started":
        store.start_run(event.spec)
    elif event.kind == "rows":
        store.put_metrics(event.spec.name, event.payload)
    else:
        store.put_result(event.spec, event.payload)
        resume = surroundings.resume_path(event.spec.name)
        if resume is not None and event.payload.status in DONE:
            # Only now: until the result is in the store, the checkpoint is all there is of the run.
            resume.unlink(missing_ok=True)
