"""Results in a database, through SQLAlchemy Core: SQLite in a folder, or PostgreSQL on a server (`docs/store.md`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import isfinite, nan
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sparseflow.core import BadStore, Busy
from sparseflow.study import server
from sparseflow.study.run import Row, RunResult
from sparseflow.study.spec import RunSpec

SCHEMA_VERSION = 1
DONE = ("finished", "diverged")
"""Of runs that have gone all their way."""
ENDED = (*DONE, "halted")
"""Of runs that have gone all their way, or as far as a search let them."""

PATIENCE = 60.0
"""Seconds for which a driver waits for a server that went away, before it gives up."""

T = TypeVar("T")

# Names are told apart and sorted by their bytes, as SQLite does, whatever the server's language.
_Name = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

_tables = sa.MetaData()
_meta = sa.Table("meta", _tables, sa.Column("key", _Name, primary_key=True), sa.Column("value", sa.Text))
_studies = sa.Table(
    "studies",
    _tables,
    sa.Column("name", _Name, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("started", _Name, nullable=False),
)
_runs = sa.Table(
    "runs",
    _tables,
    sa.Column("name", _Name, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("started", _Name),
    sa.Column("finished", sa.Text),
)
_metrics = sa.Table(
    "metrics",
    _tables,
    sa.Column("run", _Name, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("metric", _Name, primary_key=True),
    sa.Column("layer", _Name, primary_key=True),
    sa.Column("epoch", sa.Float, nullable=False),
    sa.Column("value", sa.Float),
)
"""A value that is not finite is NULL."""
_trials = sa.Table(
    "trials",
    _tables,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
)
_verdicts = sa.Table(
    "verdicts",
    _tables,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("goes_on", sa.Boolean, nullable=False),
)
"""A score that is not finite is NULL."""

_members = sa.Table(
    "members",
    _tables,
    sa.Column("study", _Name, primary_key=True),
    sa.Column("run", _Name, primary_key=True),
)
"""Which runs a study of a server is about; a folder's own database is about all of its runs."""


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
        text = str(where)
        url = server.parse(text if "://" in text else f"sqlite:///{Path(text) / 'results.db'}")
        self.label = server.public(url) if "://" in text else text
        self._server = server.is_server(url)
        self.option = "--store" if self._server else "--out"
        """What names another place."""
        self._studies = None if studies is None else tuple(studies)
        self._adopted: set[str] = set()
        self._claim: server.Claim | None = None
        self._patience = 0.0
        if "://" not in text and not create and not (Path(text) / "results.db").is_file():
            raise BadStore(f"{text}: no results.db here; run a study with --out {text} first")
        self._engine = server.engine(url)
        self._insert: Any = postgresql.insert if self._server else sqlite.insert
        if not self._server:
            sa.event.listen(self._engine, "connect", _write_ahead)
        try:
            self._open(create)
        except BadStore:
            self.close()
            raise
        except sa.exc.SQLAlchemyError as error:
            self.close()
            raise BadStore(f"{self.label}: cannot use the results store: {server.reason(error)}") from None

    def _open(self, create: bool) -> None:
        with self._engine.begin() as db:
            if create:
                if self._server:  # two that make the same tables at once would fail
                    db.execute(sa.select(sa.func.pg_advisory_xact_lock(server.lock_key("tables"))))
                _tables.create_all(db)
                row = {"key": "schema", "value": str(SCHEMA_VERSION)}
                db.execute(self._insert(_meta).values(row).on_conflict_do_nothing())
            elif self._server and not sa.inspect(db).has_table("meta"):
                raise BadStore(f"{self.label}: no results here; run a study with --store first")
            version = db.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema")).scalar()
        if version is None or int(version) > SCHEMA_VERSION:
            raise BadStore(
                f"{self.label}: the results store has schema {version}, this version knows up to {SCHEMA_VERSION}; "
                f"use the newer sparseflow that made it, or another {self.option}"
            )

    def claim(self, study: str) -> None:
        """Hold a study of a server until `close`; a server that goes away meanwhile is waited for.

        Raises:
            Busy: if another process holds it.
        """
        try:
            self._claim = server.Claim(self._engine, study, self.label)
        except sa.exc.SQLAlchemyError as error:
            raise BadStore(f"{self.label}: cannot use the results store: {server.reason(error)}") from None
        self._patience = PATIENCE

    def close(self) -> None:
        if self._claim is not None:
            self._claim.release()
        self._engine.dispose()

    def put_study(self, name: str, kind: str, content: Mapping[str, Any]) -> None:
        """Enter a study, or mark a known one as the latest asked for."""
        row = {"name": name, "kind": kind, "spec": json.dumps(content), "started": now()}
        self._upsert(_studies, [row])

    def studies(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(name, kind, specification), the latest asked for first."""
        query = sa.select(_studies.c.name, _studies.c.kind, _studies.c.spec).order_by(_studies.c.started.desc())
        found = [(name, kind, json.loads(text)) for name, kind, text in self._read(query)]
        if self._studies is None:
            return found
        order = {name: k for k, name in enumerate(self._studies)}
        return sorted((study for study in found if study[0] in order), key=lambda study: order[study[0]])

    @property
    def shows_everyones(self) -> bool:
        """Whether what it shows may be other people's: a server whose studies nobody has named."""
        return self._server and self._studies is None

    def narrow(self, study: str) -> None:
        """From now on show this study alone, where the store tells studies apart."""
        if self._server:
            self._studies = (study,)

    def adopt(self, runs: Iterable[str]) -> None:
        """Count these runs (by name) among those of the study at hand, where the store tells studies apart."""
        new = set(runs) - self._adopted
        if self._studies is not None and new:
            self._upsert(_members, [{"study": self._studies[0], "run": run} for run in new])
            self._adopted |= new

    def start_run(self, spec: RunSpec) -> None:
        """Enter a run in flight; what an earlier attempt that failed or stopped left is cleared.

        One that is done stays so while it is made again, for its weights or for another study: its result is that of
        any other attempt.
        """
        self.adopt([spec.name])
        row = {"name": spec.name, "spec": json.dumps(spec.changes()), "status": "running", "started": now()}
        self._upsert(_runs, [row | {"result": None, "finished": None}], unless_done=True)

    def put_result(self, spec: RunSpec, result: RunResult) -> None:
        """Enter how a run ended; an attempt that failed or stopped takes nothing from one that is done."""
        row = {
            "name": spec.name,
            "spec": json.dumps(spec.changes()),
            "status": result.status,
            "result": json.dumps(result.as_dict()),
            "finished": now(),
        }
        self._upsert(_runs, [row], unless_done=result.status not in DONE)

    def statuses(self) -> dict[str, str]:
        """Run name -> status."""
        query = sa.select(_runs.c.name, _runs.c.status).where(self._shown(_runs.c.name)).order_by(_runs.c.name)
        return {row.name: row.status for row in self._read(query)}

    def specs(self) -> dict[str, dict[str, Any]]:
        """Run name -> specification (what differs from the defaults), of every run that was begun."""
        query = sa.select(_runs.c.name, _runs.c.spec).where(self._shown(_runs.c.name)).order_by(_runs.c.name)
        return {row.name: json.loads(row.spec) for row in self._read(query)}

    def results(self) -> dict[str, dict[str, Any]]:
        """Run name -> result fields, with `started` and `finished`; only runs that ended."""
        query = sa.select(_runs).where(_runs.c.result.is_not(None), self._shown(_runs.c.name)).order_by(_runs.c.name)
        return {
            row.name: json.loads(row.result) | {"started": row.started, "finished": row.finished}
            for row in self._read(query)
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
        return [Trial(n, run, tuple(json.loads(point)), origin) for n, run, point, origin in self._read(query)]

    def put_verdict(self, study: str, verdict: Verdict) -> None:
        row = asdict(verdict) | {"study": study}
        self._upsert(_verdicts, [row | {"score": verdict.score if isfinite(verdict.score) else None}])

    def verdicts(self, study: str) -> list[Verdict]:
        """What became of a search's runs at their rungs, in the order of the numbers."""
        v = _verdicts.c
        query = sa.select(v.number, v.rung, v.run, v.score, v.goes_on).where(v.study == study).order_by(v.number)
        return [Verdict(n, rung, run, nan if s is None else s, on) for n, rung, run, s, on in self._read(query)]

    def series(
        self, metrics: Iterable[str], *, points_only: bool = False
    ) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Run -> metric -> [(step, value)] of whole-network metrics, in order of the steps.

        Args:
            points_only: only the steps at which the run's probes measured.
        """
        m = _metrics
        query = sa.select(m.c.run, m.c.metric, m.c.step, m.c.value).where(
            m.c.metric.in_(list(metrics)), m.c.layer == "", self._shown(m.c.run)
        )
        if points_only:
            p = _metrics.alias("points")
            query = query.join(
                p, sa.and_(p.c.run == m.c.run, p.c.step == m.c.step, p.c.metric == "point", p.c.layer == "")
            )
        found: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for run, metric, step, value in self._read(query.order_by(m.c.run, m.c.metric, m.c.step)):
            values = found.setdefault(run, {}).setdefault(metric, [])
            values.append((step, float("nan") if value is None else value))
        return found

    def values(self, metrics: Iterable[str]) -> list[tuple[str, int, float, str, str, float]]:
        """(run, step, epoch, layer, metric, value) of everything that was measured by these names, layers too."""
        m = _metrics
        columns = (m.c.run, m.c.step, m.c.epoch, m.c.layer, m.c.metric, m.c.value)
        query = sa.select(*columns).where(m.c.metric.in_(list(metrics)), self._shown(m.c.run))
        rows = self._read(query.order_by(*columns[:2], m.c.layer, m.c.metric))
        return [(*row[:-1], float("nan") if row[-1] is None else row[-1]) for row in rows]

    def epochs(self) -> dict[str, dict[int, float]]:
        """Run -> optimiser step -> the same in epochs, for every step at which something was measured."""
        m = _metrics
        found: dict[str, dict[int, float]] = {}
        columns = (m.c.run, m.c.step, m.c.epoch)
        query = sa.select(*columns).where(m.c.layer == "", self._shown(m.c.run)).distinct().order_by(*columns)
        for run, step, epoch in self._read(query):
            found.setdefault(run, {})[step] = epoch
        return found

    def _shown(self, run: Any) -> sa.ColumnElement[bool]:
        """Whether a run is one of the studies at hand."""
        if self._studies is None:
            return sa.true()
        return run.in_(sa.select(_members.c.run).where(_members.c.study.in_(self._studies)))  # type: ignore[no-any-return]

    def _upsert(self, table: sa.Table, rows: list[dict[str, Any]], *, unless_done: bool = False) -> None:
        if not rows:
            return
        insert = self._insert(table)
        keys = [c.name for c in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        keep = _runs.c.status.not_in(DONE) if unless_done else None
        statement = (
            insert.on_conflict_do_update(index_elements=keys, set_=changed, where=keep)
            if changed
            else insert.on_conflict_do_nothing()
        )
        # In one order everywhere: two that write the same rows at once wait for each other, and not both.
        rows = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
        self._attempt("write to", lambda db: db.execute(statement, rows))

    def _read(self, query: sa.Select[Any]) -> Sequence[Any]:
        return self._attempt("read", lambda db: db.execute(query).all())

    def _attempt(self, what: str, work: Callable[[sa.Connection], T]) -> T:
        """One transaction, all of it or nothing; what is written can be written twice, so it can be tried again."""
        end = time.monotonic() + self._patience
        pause = 0.1
        while True:
            try:
                with self._transaction() as db:
                    return work(db)
            except Busy:
                if time.monotonic() > end:  # else: it is our own old connection, which the server has not missed yet
                    raise
            except sa.exc.SQLAlchemyError as error:
                passes = self._patience > 0 and server.passes(error)
                if not passes or time.monotonic() > end:
                    waited = f" ({self._patience:.0f} s waited; the same command goes on)" if passes else ""
                    self._patience = 0.0  # workers that are being stopped report too; they need not wait again
                    raise BadStore(
                        f"{self.label}: cannot {what} the results store: {server.reason(error)}{waited}"
                    ) from None
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                self._patience = 0.0
                raise
            pause = min(2 * pause, 2.0)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        if self._claim is None:
            with self._engine.begin() as db:
                yield db
        else:
            db = self._claim.connection()
            with db.begin():
                yield db


def _write_ahead(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    # Readers (a report made while a study runs) do not block the writer, and a killed process leaves a whole database.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
