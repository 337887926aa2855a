"""Results in a database: SQLite by default, through SQLAlchemy Core, one writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import isfinite, nan
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sparseflow.core import BadStore
from sparseflow.study.run import Row, RunResult
from sparseflow.study.spec import RunSpec

SCHEMA_VERSION = 1
DONE = ("finished", "diverged")
"""Of runs that have gone all their way."""
ENDED = (*DONE, "halted")
"""Of runs that have gone all their way, or as far as a search let them."""

_tables = sa.MetaData()
_meta = sa.Table("meta", _tables, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text))
_studies = sa.Table(
    "studies",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
)
_runs = sa.Table(
    "runs",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("started", sa.Text),
    sa.Column("finished", sa.Text),
)
_metrics = sa.Table(
    "metrics",
    _tables,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("layer", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Float, nullable=False),
    sa.Column("value", sa.Float),
)
"""A value that is not finite is NULL."""
_trials = sa.Table(
    "trials",
    _tables,
    sa.Column("study", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
)
_verdicts = sa.Table(
    "verdicts",
    _tables,
    sa.Column("study", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("goes_on", sa.Boolean, nullable=False),
)
"""A score that is not finite is NULL."""


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
    """The results of a folder: studies, runs, and every measured value.

    Args:
        where: a folder (its `results.db` is used) or a SQLAlchemy URL.
        create: make the database if it does not exist.

    Raises:
        BadStore: if it does not exist and is not to be made, cannot be opened or written, or is of a newer version.
    """

    def __init__(self, where: str | Path, *, create: bool = False) -> None:
        text = str(where)
        url = text if "://" in text else f"sqlite:///{Path(text) / 'results.db'}"
        self.label = text
        if "://" not in text and not create and not (Path(text) / "results.db").is_file():
            raise BadStore(f"{text}: no results.db here; run a study with --out {text} first")
        self._engine = sa.create_engine(url)
        self._insert: Any = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _write_ahead)
        try:
            self._open(create)
        except sa.exc.SQLAlchemyError as error:
            raise BadStore(f"{text}: cannot use the results store: {_reason(error)}") from None

    def _open(self, create: bool) -> None:
        if create:
            _tables.create_all(self._engine)
            with self._engine.begin() as db:
                row = {"key": "schema", "value": str(SCHEMA_VERSION)}
                db.execute(self._insert(_meta).values(row).on_conflict_do_nothing())
        with self._engine.connect() as db:
            version = db.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema")).scalar()
        if version is None or int(version) > SCHEMA_VERSION:
            raise BadStore(
                f"{self.label}: the results store has schema {version}, this version knows up to {SCHEMA_VERSION}; "
                "use the newer sparseflow that made it, or another --out"
            )

    def close(self) -> None:
        self._engine.dispose()

    def put_study(self, name: str, kind: str, content: Mapping[str, Any]) -> None:
        """Enter a study, or mark a known one as the latest asked for."""
        row = {"name": name, "kind": kind, "spec": json.dumps(content), "started": now()}
        self._upsert(_studies, [row])

    def studies(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(name, kind, specification), the latest asked for first."""
        query = sa.select(_studies.c.name, _studies.c.kind, _studies.c.spec).order_by(_studies.c.started.desc())
        with self._engine.connect() as db:
            return [(name, kind, json.loads(text)) for name, kind, text in db.execute(query)]

    def start_run(self, spec: RunSpec) -> None:
        """Enter a run in flight; what an earlier attempt that failed or stopped left is cleared."""
        row = {"name": spec.name, "spec": json.dumps(spec.changes()), "status": "running", "started": now()}
        self._upsert(_runs, [row | {"result": None, "finished": None}])

    def put_result(self, spec: RunSpec, result: RunResult) -> None:
        row = {
            "name": spec.name,
            "spec": json.dumps(spec.changes()),
            "status": result.status,
            "result": json.dumps(result.as_dict()),
            "finished": now(),
        }
        self._upsert(_runs, [row])

    def statuses(self) -> dict[str, str]:
        """Run name -> status."""
        with self._engine.connect() as db:
            return {row.name: row.status for row in db.execute(sa.select(_runs.c.name, _runs.c.status))}

    def specs(self) -> dict[str, dict[str, Any]]:
        """Run name -> specification (what differs from the defaults), of every run that was begun."""
        with self._engine.connect() as db:
            return {row.name: json.loads(row.spec) for row in db.execute(sa.select(_runs.c.name, _runs.c.spec))}

    def results(self) -> dict[str, dict[str, Any]]:
        """Run name -> result fields, with `started` and `finished`; only runs that ended."""
        query = sa.select(_runs).where(_runs.c.result.is_not(None))
        with self._engine.connect() as db:
            return {
                row.name: json.loads(row.result) | {"started": row.started, "finished": row.finished}
                for row in db.execute(query)
            }

    def put_metrics(self, run: str, rows: Iterable[Row]) -> None:
        """Enter measured values; one that is there already is replaced."""
        self._upsert(
            _metrics,
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
        self._upsert(_trials, [row])

    def trials(self, study: str) -> list[Trial]:
        """What a search has tried, in the order of the numbers."""
        t = _trials.c
        query = sa.select(t.number, t.run, t.point, t.origin).where(t.study == study).order_by(t.number)
        with self._engine.connect() as db:
            return [Trial(n, run, tuple(json.loads(point)), origin) for n, run, point, origin in db.execute(query)]

    def put_verdict(self, study: str, verdict: Verdict) -> None:
        row = asdict(verdict) | {"study": study}
        self._upsert(_verdicts, [row | {"score": verdict.score if isfinite(verdict.score) else None}])

    def verdicts(self, study: str) -> list[Verdict]:
        """What became of a search's runs at their rungs, in the order of the numbers."""
        v = _verdicts.c
        query = sa.select(v.number, v.rung, v.run, v.score, v.goes_on).where(v.study == study).order_by(v.number)
        with self._engine.connect() as db:
            found = db.execute(query).all()
        return [Verdict(n, rung, run, nan if score is None else score, on) for n, rung, run, score, on in found]

    def series(
        self, metrics: Iterable[str], *, points_only: bool = False
    ) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Run -> metric -> [(step, value)] of whole-network metrics, in order of the steps.

        Args:
            points_only: only the steps at which the run's probes measured.
        """
        m = _metrics
        query = sa.select(m.c.run, m.c.metric, m.c.step, m.c.value).where(
            m.c.metric.in_(list(metrics)), m.c.layer == ""
        )
        if points_only:
            p = _metrics.alias("points")
            query = query.join(
                p, sa.and_(p.c.run == m.c.run, p.c.step == m.c.step, p.c.metric == "point", p.c.layer == "")
            )
        found: dict[str, dict[str, list[tuple[int, float]]]] = {}
        with self._engine.connect() as db:
            for run, metric, step, value in db.execute(query.order_by(m.c.run, m.c.metric, m.c.step)):
                values = found.setdefault(run, {}).setdefault(metric, [])
                values.append((step, float("nan") if value is None else value))
        return found

    def values(self, metrics: Iterable[str]) -> list[tuple[str, int, float, str, str, float]]:
        """(run, step, epoch, layer, metric, value) of everything that was measured by these names, layers too."""
        m = _metrics
        columns = (m.c.run, m.c.step, m.c.epoch, m.c.layer, m.c.metric, m.c.value)
        query = sa.select(*columns).where(m.c.metric.in_(list(metrics))).order_by(*columns[:2], m.c.layer, m.c.metric)
        with self._engine.connect() as db:
            return [(*row[:-1], float("nan") if row[-1] is None else row[-1]) for row in db.execute(query)]

    def epochs(self) -> dict[str, dict[int, float]]:
        """Run -> optimiser step -> the same in epochs, for every step at which something was measured."""
        m = _metrics
        found: dict[str, dict[int, float]] = {}
        with self._engine.connect() as db:
            for run, step, epoch in db.execute(
                sa.select(m.c.run, m.c.step, m.c.epoch).where(m.c.layer == "").distinct()
            ):
                found.setdefault(run, {})[step] = epoch
        return found

    def _upsert(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        insert = self._insert(table)
        keys = [c.name for c in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        try:
            with self._engine.begin() as db:
                db.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), rows)
        except sa.exc.SQLAlchemyError as error:
            raise BadStore(f"{self.label}: cannot write to the results store: {_reason(error)}") from None


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _write_ahead(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    # Readers (a report made while a study runs) do not block the writer, and a killed process leaves a whole database.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
