"""Carry out a list of runs into an output folder: what is finished is skipped, what was cut goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sparseflow.core import BadStore, SparseflowError
from sparseflow.study.facts import FactsOf
from sparseflow.study.groups import grouped
from sparseflow.study.lineage import legacy, with_predecessors
from sparseflow.study.lock import locked
from sparseflow.study.place import store_to_drive
from sparseflow.study.pool import Event, run_pool
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, Store
from sparseflow.study.surroundings import Surroundings
from sparseflow.train import checkpoint

Results = Mapping[str, Mapping[str, Any]]
"""Run name -> result fields, as the store gives them."""


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


@dataclass(frozen=True)
class Sequel:
    """Runs that follow from the results of others.

    Attributes:
        count: how many there will be.
        runs: those that the results (run name -> fields) already determine.
        candidates: every run that it may turn out to be.
    """

    count: int
    runs: Callable[[Results], Sequence[RunSpec]]
    candidates: Sequence[RunSpec]


def drive(
    runs: Iterable[RunSpec],
    out: Path,
    surroundings: Surroundings,
    jobs: int,
    watcher: Watcher,
    *,
    study: tuple[str, str, Mapping[str, Any]],
    facts: FactsOf,
    server: str | None = None,
    sequel: Sequel | None = None,
    finish: Callable[[Store], None] = lambda store: None,
) -> Tally:
    """Execute every run that the folder does not hold yet, and those that must come before it.

    Args:
        out: output folder, locked meanwhile; it holds `results.db`, or `store.json` that says where the results are.
        study: (name, kind, specification) entered into the store.
        facts: of the data that each run trains on; small runs of one shape are trained together (`study.groups`).
        server: URL of the database that a new folder's results go to, instead of its `results.db`.
        sequel: asked for its runs when all of `runs` have ended.
        finish: called at the end with the open store, also after an interrupt (to write the report of what is there).

    Raises:
        Busy, BadStore: if the folder cannot be had or used, holds another kind of study, or runs made on other data.
        Interrupted: after Ctrl-C, once the runs in flight have left their checkpoints.
    """
    agenda = _Agenda(with_predecessors(runs), sequel)
    surroundings = replace(surroundings, legacy=legacy(agenda.possible))
    with locked(out):
        store = store_to_drive(out, server, study[0])
        try:
            wanted = agenda.known(store)
            _check_same(store, study[1], wanted, facts)
            store.put_study(*study)
            if surroundings.checkpoints is not None:
                checkpoint.sweep(surroundings.checkpoints)
            watcher.begin(agenda.count, len(wanted) - len(_unfinished(store, wanted, surroundings)))
            attempted: set[str] = set()
            failed: dict[str, str] = {}

            def handle(event: Event) -> None:
                _enter(store, event, surroundings)
                if event.kind == "ended" and event.payload.status == "failed":
                    failed[event.spec.name] = event.payload.error
                watcher.event(event)

            interrupted = False
            try:
                for _ in agenda.phases:
                    rest = _unfinished(store, agenda.known(store), surroundings)
                    rest = [run for run in rest if run.name not in attempted]
                    attempted |= {run.name for run in rest}
                    if rest:
                        run_pool(grouped(rest, jobs, facts), surroundings, jobs, handle)
            except KeyboardInterrupt:
                interrupted = True
            finish(store)
            if interrupted:
                done = store.statuses()
                left = agenda.count - sum(done.get(run.name) in DONE for run in agenda.known(store))
                raise Interrupted(
                    f"stopped with {left} of {agenda.count} runs to go; the same command goes on from here"
                )
            return Tally(agenda.count, len(attempted), failed)
        finally:
            store.close()


class _Agenda:
    """The runs of a study: those asked for, and those that follow from their results."""

    def __init__(self, first: list[RunSpec], sequel: Sequel | None) -> None:
        self._first, self._sequel = first, sequel
        self.count = len(first) + (sequel.count if sequel else 0)
        self.phases = range(2 if sequel else 1)
        self.possible = with_predecessors([*first, *(sequel.candidates if sequel else ())])

    def known(self, store: Store) -> list[RunSpec]:
        """Every run that can be named now."""
        later = self._sequel.runs(store.results()) if self._sequel else ()
        return with_predecessors([*self._first, *later])


def _unfinished(store: Store, wanted: Sequence[RunSpec], surroundings: Surroundings) -> list[RunSpec]:
    store.adopt(spec.name for spec in wanted)
    known = store.statuses()
    return [spec for spec in wanted if known.get(spec.name) not in DONE or _lacks_weights(spec, surroundings)]


def _lacks_weights(spec: RunSpec, surroundings: Surroundings) -> bool:
    """Whether weights that are to be kept are not there: such a run is made again, bit for bit."""
    return any(not path.is_file() for path in surroundings.kept_paths(spec))


def _check_same(store: Store, kind: str, wanted: Sequence[RunSpec], facts: FactsOf) -> None:
    """One folder, one kind of study, and every run on the data that it was made on: a report could not tell."""
    others = {other for _, other, _ in store.studies()} - {kind}
    if others:
        raise BadStore(f"{store.label} holds a study of kind {others.pop()!r}; give this one another --out")
    store.adopt(run.name for run in wanted)
    results = store.results()
    for run in wanted:
        made_on = results[run.name]["data_digest"] if run.name in results else ""
        if made_on and made_on != facts(run).digest:
            raise BadStore(
                f"{store.label} holds runs of this study made on other data (digest {made_on}, now "
                f"{facts(run).digest}); give another {store.option}"
            )


def _enter(store: Store, event: Event, surroundings: Surroundings) -> None:
    if event.kind == "started":
        store.start_run(event.spec)
    elif event.kind == "rows":
        store.put_metrics(event.spec.name, event.payload)
    else:
        store.put_result(event.spec, event.payload)
        if event.payload.status in DONE:
            # Only now: until the result is in the store, the checkpoint is all there is of the run.
            for path in surroundings.passing_paths(event.spec.name):
                path.unlink(missing_ok=True)
