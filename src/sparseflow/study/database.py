"""Transactions on the tables of results, through SQLAlchemy Core: SQLite in a folder, or PostgreSQL on a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sparseflow.core import BadStore, Busy
from sparseflow.study import server, tables

PATIENCE = 60.0
"""Seconds for which a driver waits for a server that went away, before it gives up."""

T = TypeVar("T")


class Database:
    """One database of results.

    Args:
        where: a folder (its `results.db` is used) or a database URL.
        create: make the database, or what it lacks of tables, if need be.

    Raises:
        BadStore: if it does not exist and is not to be made, cannot be opened or written, or is of a newer version.
    """

    def __init__(self, where: str | Path, *, create: bool = False) -> None:
        text = str(where)
        url = server.parse(text if "://" in text else f"sqlite:///{Path(text) / 'results.db'}")
        self.label = server.public(url) if "://" in text else text
        self.on_server = server.is_server(url)
        self.option = "--store" if self.on_server else "--out"
        """What names another place."""
        self._claim: server.Claim | None = None
        self._patience = 0.0
        if "://" not in text and not create and not (Path(text) / "results.db").is_file():
            raise BadStore(f"{text}: no results.db here; run a study with --out {text} first")
        self._engine = server.engine(url)
        self._insert: Any = postgresql.insert if self.on_server else sqlite.insert
        if not self.on_server:
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
                if self.on_server:  # two that make the same tables at once would fail
                    db.execute(sa.select(sa.func.pg_advisory_xact_lock(server.lock_key("tables"))))
                tables.schema.create_all(db)
                row = {"key": "schema", "value": str(tables.SCHEMA_VERSION)}
                db.execute(self._insert(tables.meta).values(row).on_conflict_do_nothing())
            elif self.on_server and not sa.inspect(db).has_table("meta"):
                raise BadStore(f"{self.label}: no results here; run a study with --store first")
            version = db.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema")).scalar()
        if version is None or int(version) > tables.SCHEMA_VERSION:
            raise BadStore(
                f"{self.label}: the results store has schema {version}, this version knows up to "
                f"{tables.SCHEMA_VERSION}; use the newer sparseflow that made it, or another {self.option}"
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

    def upsert(self, table: sa.Table, rows: list[dict[str, Any]], keep: sa.ColumnElement[bool] | None = None) -> None:
        """Enter rows, all or none; one whose key is there replaces it.

        Args:
            keep: replaces only where this holds of the row that is there.
        """
        if not rows:
            return
        insert = self._insert(table)
        keys = [c.name for c in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        statement = (
            insert.on_conflict_do_update(index_elements=keys, set_=changed, where=keep)
            if changed
            else insert.on_conflict_do_nothing()
        )
        # In one order everywhere: two that write the same rows at once wait for each other, and not both.
        rows = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
        self._attempt("write to", lambda db: db.execute(statement, rows))

    def read(self, query: sa.Select[Any]) -> Sequence[Any]:
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
