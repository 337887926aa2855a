"""Carry out a study into an output folder: what is finished is skipped, what was cut goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sparseflow.core import BadStore, SparseflowError
from sparseflow.models import is_imported
from sparseflow.study.build import check_own
from sparseflow.study.facts import FactsOf
from sparseflow.study.groups import grouped
from sparseflow.study.lineage import Legacy, legacy, with_predecessors
from sparseflow.study.lock import locked
from sparseflow.study.place import store_to_drive
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, ENDED, Store
from sparseflow.study.supply import Event, Executor, Listed, Supply
from sparseflow.study.surroundings import Surroundings
from sparseflow.train import checkpoint

Results = Mapping[str, Mapping[str, Any]]
"""Run name -> result fields, as the store gives them."""


class Watcher(Protocol):
    """Sees a study go by; the command line draws its progress from this."""

    def begin(self, total: int, done: int) -> None: ...

    def grows(self, total: int) -> None:
        """The study turns out to have so many runs."""
        ...

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
class Desk:
    """What a programme works with while it is carried out.

    Attributes:
        jobs: tasks that are carried out at a time.
        facts: of the data that each run trains on.
        lacking: those of some runs that have not gone all their way, or left not all that they are to, and were not
            tried just now.
        forget: a run that was halted will not go on; its checkpoint is removed.
    """

    store: Store
    jobs: int
    facts: FactsOf
    lacking: Callable[[Iterable[RunSpec]], list[RunSpec]]
    forget: Callable[[RunSpec], None]


class Programme(Protocol):
    """What a study does."""

    def count(self, store: Store) -> int:
        """Runs in all, as far as one can tell."""
        ...

    def legacy(self, store: Store) -> Legacy:
        """What the runs that the phase at hand may turn out to be about must leave (`lineage.legacy`)."""
        ...

    def known(self, store: Store) -> list[RunSpec]:
        """Every run that can be named now."""
        ...

    def supplies(self, desk: Desk) -> Iterator[Supply]:
        """The work, phase by phase; the next is asked for when a phase is over."""
        ...


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


class Planned:
    """Runs that are known before the first, those that must come before them, and what follows from their results.

    Small runs of one shape are trained together (`study.groups`).

    Args:
        sequel: asked for its runs when all of `runs` have ended.
        kept: those whose final networks are kept in any case.
    """

    def __init__(self, runs: Iterable[RunSpec], sequel: Sequel | None = None, kept: Iterable[RunSpec] = ()) -> None:
        self._first, self._sequel = with_predecessors(runs), sequel
        self._kept = {run.name: frozenset[int]() for run in kept}

    def count(self, store: Store) -> int:
        return len(self._first) + (self._sequel.count if self._sequel else 0)

    def legacy(self, store: Store) -> Legacy:
        candidates = self._sequel.candidates if self._sequel else ()
        return self._kept | legacy(with_predecessors([*self._first, *candidates]))

    def known(self, store: Store) -> list[RunSpec]:
        later = self._sequel.runs(store.results()) if self._sequel else ()
        return with_predecessors([*self._first, *later])

    def supplies(self, desk: Desk) -> Iterator[Supply]:
        for _ in range(2 if self._sequel else 1):
            yield Listed(grouped(desk.lacking(self.known(desk.store)), desk.jobs, desk.facts))


def drive(
    programme: Programme,
    out: Path,
    surroundings: Surroundings,
    executor: Executor,
    watcher: Watcher,
    *,
    study: tuple[str, str, Mapping[str, Any]],
    facts: FactsOf,
    server: str | None = None,
    finish: Callable[[Store], None] = lambda store: None,
) -> Tally:
    """Execute every run of a programme that the folder does not hold yet.

    Args:
        out: output folder, locked meanwhile; it holds `results.db`, or `store.json` that says where the results are.
        study: (name, kind, specification) entered into the store.
        facts: of the data that each run trains on.
        server: URL of the database that a new folder's results go to, instead of its `results.db`.
        finish: called at the end with the open store, also after an interrupt (to write the report of what is there).

    Raises:
        BadValue, BadSpec: for a model of the user's own that does not do.
        Busy, BadStore: if the folder cannot be had or used, holds another kind of study, or runs made on other data.
        Interrupted: after Ctrl-C, once the runs in flight have left their checkpoints.
    """
    with locked(out):
        store = store_to_drive(out, server, study[0])
        try:
            wanted = programme.known(store)
            _check_same(store, study[1], wanted, facts)
            _check_models(store, wanted, surroundings, facts)
            store.put_study(*study)
            if surroundings.checkpoints is not None:
                checkpoint.sweep(surroundings.checkpoints)
            attempted: set[str] = set()
            failed: dict[str, str] = {}

            def where() -> Surroundings:
                return replace(surroundings, legacy=programme.legacy(store))

            def handle(event: Event) -> None:
                _enter(store, event, surroundings)
                if event.kind == "started":
                    attempted.add(event.spec.name)
                elif event.kind == "ended" and event.payload.status == "failed":
                    failed[event.spec.name] = event.payload.error
                watcher.event(event)

            def lacking(runs: Iterable[RunSpec]) -> list[RunSpec]:
                return [run for run in _unfinished(store, runs, where) if run.name not in attempted]

            def forget(run: RunSpec) -> None:
                _remove_passing(run, surroundings)

            watcher.begin(programme.count(store), len(wanted) - len(_unfinished(store, wanted, where, ENDED)))
            desk = Desk(store, executor.jobs, facts, lacking, forget)
            interrupted = False
            try:
                for supply in programme.supplies(desk):
                    watcher.grows(programme.count(store))
                    executor.run(supply, where(), handle)
            except KeyboardInterrupt:
                interrupted = True
            finish(store)
            count = programme.count(store)
            if interrupted:
                statuses = store.statuses()
                left = count - sum(statuses.get(run.name) in ENDED for run in programme.known(store))
                raise Interrupted(f"stopped with {left} of {count} runs to go; the same command goes on from here")
            return Tally(count, len(attempted), failed)
        finally:
            store.close()


def _unfinished(
    store: Store, runs: Iterable[RunSpec], where: Callable[[], Surroundings], ends: Sequence[str] = DONE
) -> list[RunSpec]:
    """Those that have not ended, or have left not all that they are to.

    Args:
        where: asked if a run is done; what runs leave for each other follows from all of the study, which takes time.
    """
    runs = list(runs)
    store.adopt(run.name for run in runs)
    known = store.statuses()
    done = {run.name for run in runs if known.get(run.name) in DONE}
    here = where() if done else None
    return [
        run
        for run in runs
        if known.get(run.name) not in ends or (here is not None and run.name in done and _lacks_weights(run, here))
    ]


def _lacks_weights(spec: RunSpec, surroundings: Surroundings) -> bool:
    """Whether weights that are to be kept are not there: such a run is made again, bit for bit."""
    return any(not path.is_file() for path in surroundings.kept_paths(spec))


def _check_models(store: Store, wanted: Sequence[RunSpec], surroundings: Surroundings, facts: FactsOf) -> None:
    """What is wrong with a model of the user's own must show before the first run."""
    left = _unfinished(store, [run for run in wanted if is_imported(run.model.name)], lambda: surroundings, ENDED)
    different = {(run.model.model_dump_json(), run.mask.model_dump_json(), run.data.name): run for run in left}
    for run in different.values():
        check_own(run, facts(run).input_shape, facts(run).classes)


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
            _remove_passing(event.spec, surroundings)


def _remove_passing(spec: RunSpec, surroundings: Surroundings) -> None:
    for path in surroundings.passing_paths(spec.name):
        path.unlink(missing_ok=True)
