"""What a study's results say, in a database (`docs/store.md`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import isfinite, nan
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sparseflow.study import tables
from sparseflow.study.database import Database
from sparseflow.study.run import Row, RunResult
from sparseflow.study.spec import RunSpec

DONE = ("finished", "diverged")
"""Of runs that have gone all their way."""
ENDED = (*DONE, "halted")
"""Of runs that have gone all their way, or as far as a search let them."""


@dataclass(frozen=True)
class Trial:
    """One thing that a search tried: the run that it was, the point of the search space, and what proposed it."""

    number: int
    run: str
    point: tuple[float, ...]
    origin: str


@dataclass(frozen=True)
class Verdict:
    """What became of a run at a rung, numbered in the order in which verdicts fell; a later one replaces it."""

    number: int
    rung: int
    run: str
    score: float
    goes_on: bool


class Store:
    """Studies, runs, and every measured value.

    Args:
        where: a folder (its `results.db` is used) or a database URL.
        create: make the database, or what it lacks of tables, if need be.
        studies: show these alone, with their runs, in this order; the first is the one that runs are entered for. For
            a server, where others have theirs; without it everything is shown.

    Raises:
        BadStore: if it does not exist and is not to be made, cannot be opened or written, or is of a newer version.
    """

    def __init__(self, where: str | Path, *, create: bool = False, studies: Sequence[str] | None = None) -> None:
        self._db = Database(where, create=create)
        self.label, self.option = self._db.label, self._db.option
        self._studies = None if studies is None else tuple(studies)
        self._adopted: set[str] = set()

    def claim(self, study: str) -> None:
        """Hold a study of a server until `close`; a server that goes away meanwhile is waited for.

        Raises:
            Busy: if another process holds it.
        """
        self._db.claim(study)

    def close(self) -> None:
        self._db.close()

    def put_study(self, name: str, kind: str, content: Mapping[str, Any]) -> None:
        """Enter a study, or mark a known one as the latest asked for."""
        row = {"name": name, "kind": kind, "spec": json.dumps(content), "started": now()}
        self._db.upsert(tables.studies, [row])

    def studies(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(name, kind, specification), the latest asked for first."""
        s = tables.studies.c
        query = sa.select(s.name, s.kind, s.spec).order_by(s.started.desc())
        found = [(name, kind, json.loads(text)) for name, kind, text in self._db.read(query)]
        if self._studies is None:
            return found
        order = {name: k for k, name in enumerate(self._studies)}
        return sorted((study for study in found if study[0] in order), key=lambda study: order[study[0]])

    @property
    def shows_everyones(self) -> bool:
        """Whether what it shows may be other people's: a server whose studies nobody has named."""
        return self._db.on_server and self._studies is None

    def narrow(self, study: str) -> None:
        """From now on show this study alone, where the store tells studies apart."""
        if self._db.on_server:
            self._studies = (study,)

    def adopt(self, runs: Iterable[str]) -> None:
        """Count these runs (by name) among those of the study at hand, where the store tells studies apart."""
        new = set(runs) - self._adopted
        if self._studies is not None and new:
            self._db.upsert(tables.members, [{"study": self._studies[0], "run": run} for run in new])
            self._adopted |= new

    def start_run(self, spec: RunSpec) -> None:
        """Enter a run in flight; what an earlier attempt that failed or stopped left is cleared.

        One that is done stays so while it is made again, for its weights or for another study: its result is that of
        any other attempt.
        """
        self.adopt([spec.name])
        row = {"name": spec.name, "spec": json.dumps(spec.changes()), "status": "running", "started": now()}
        self._db.upsert(tables.runs, [row | {"result": None, "finished": None}], _not_done())

    def put_result(self, spec: RunSpec, result: RunResult) -> None:
        """Enter how a run ended; an attempt that failed or stopped takes nothing from one that is done."""
        row = {
            "name": spec.name,
            "spec": json.dumps(spec.changes()),
            "status": result.status,
            "result": json.dumps(result.as_dict()),
            "finished": now(),
        }
        self._db.upsert(tables.runs, [row], None if result.status in DONE else _not_done())

    def statuses(self) -> dict[str, str]:
        """Run name -> status."""
        r = tables.runs.c
        query = sa.select(r.name, r.status).where(self._shown(r.name)).order_by(r.name)
        return {row.name: row.status for row in self._db.read(query)}

    def specs(self) -> dict[str, dict[str, Any]]:
        """Run name -> specification (what differs from the defaults), of every run that was begun."""
        r = tables.runs.c
        query = sa.select(r.name, r.spec).where(self._shown(r.name)).order_by(r.name)
        return {row.name: json.loads(row.spec) for row in self._db.read(query)}

    def results(self) -> dict[str, dict[str, Any]]:
        """Run name -> result fields, with `started` and `finished`; only runs that ended."""
        r = tables.runs.c
        query = sa.select(tables.runs).where(r.result.is_not(None), self._shown(r.name)).order_by(r.name)
        return {
            row.name: json.loads(row.result) | {"started": row.started, "finished": row.finished}
            for row in self._db.read(query)
        }

    def put_metrics(self, run: str, rows: Iterable[Row]) -> None:
        """Enter measured values; one that is there already is replaced."""
        self._db.upsert(
            tables.metrics,
            [
                {
                    "run": run,
                    "step": step,
                    "epoch": epoch,
                    "metric": metric,
                    "layer": layer,
                    "value": value if isfinite(value) else None,
                }
                for step, epoch, metric, layer, value in rows
            ],
        )

    def put_trial(self, study: str, trial: Trial) -> None:
        row = asdict(trial) | {"study": study, "point": json.dumps(trial.point)}
        self._db.upsert(tables.trials, [row])

    def trials(self, study: str) -> list[Trial]:
        """What a search has tried, in the order of the numbers."""
        t = tables.trials.c
        query = sa.select(t.number, t.run, t.point, t.origin).where(t.study == study).order_by(t.number)
        return [Trial(n, run, tuple(json.loads(point)), origin) for n, run, point, origin in self._db.read(query)]

    def put_verdict(self, study: str, verdict: Verdict) -> None:
        row = asdict(verdict) | {"study": study}
        self._db.upsert(tables.verdicts, [row | {"score": verdict.score if isfinite(verdict.score) else None}])

    def verdicts(self, study: str) -> list[Verdict]:
        """What became of a search's runs at their rungs, in the order of the numbers."""
        v = tables.verdicts.c
        query = sa.select(v.number, v.rung, v.run, v.score, v.goes_on).where(v.study == study).order_by(v.number)
        return [Verdict(n, rung, run, nan if s is None else s, on) for n, rung, run, s, on in self._db.read(query)]

    def series(
        self, metrics: Iterable[str], *, points_only: bool = False
    ) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Run -> metric -> [(step, value)] of whole-network metrics, in order of the steps.

        Args:
            points_only: only the steps at which the run's probes measured.
        """
        m = tables.metrics
        query = sa.select(m.c.run, m.c.metric, m.c.step, m.c.value).where(
            m.c.metric.in_(list(metrics)), m.c.layer == "", self._shown(m.c.run)
        )
        if points_only:
            p = tables.metrics.alias("points")
            query = query.join(
                p, sa.and_(p.c.run == m.c.run, p.c.step == m.c.step, p.c.metric == "point", p.c.layer == "")
            )
        found: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for run, metric, step, value in self._db.read(query.order_by(m.c.run, m.c.metric, m.c.step)):
            values = found.setdefault(run, {}).setdefault(metric, [])
            values.append((step, float("nan") if value is None else value))
        return found

    def values(self, metrics: Iterable[str]) -> list[tuple[str, int, float, str, str, float]]:
        """(run, step, epoch, layer, metric, value) of everything that was measured by these names, layers too."""
        m = tables.metrics
        columns = (m.c.run, m.c.step, m.c.epoch, m.c.layer, m.c.metric, m.c.value)
        query = sa.select(*columns).where(m.c.metric.in_(list(metrics)), self._shown(m.c.run))
        rows = self._db.read(query.order_by(*columns[:2], m.c.layer, m.c.metric))
        return [(*row[:-1], float("nan") if row[-1] is None else row[-1]) for row in rows]

    def epochs(self) -> dict[str, dict[int, float]]:
        """Run -> optimiser step -> the same in epochs, for every step at which something was measured."""
        m = tables.metrics
        found: dict[str, dict[int, float]] = {}
        columns = (m.c.run, m.c.step, m.c.epoch)
        query = sa.select(*columns).where(m.c.layer == "", self._shown(m.c.run)).distinct().order_by(*columns)
        for run, step, epoch in self._db.read(query):
            found.setdefault(run, {})[step] = epoch
        return found

    def _shown(self, run: Any) -> sa.ColumnElement[bool]:
        """Whether a run is one of the studies at hand."""
        if self._studies is None:
            return sa.true()
        return run.in_(sa.select(tables.members.c.run).where(tables.members.c.study.in_(self._studies)))  # type: ignore[no-any-return]


def _not_done() -> sa.ColumnElement[bool]:
    return tables.runs.c.status.not_in(DONE)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
