"""A database server: its URL without secrets, connections that notice a dead peer, and one driver per study."""

from __future__ import annotations

import os
import socket
import time
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from sparseflow.core import BadStore, Busy

FORM = "postgresql://USER@HOST:PORT/DATABASE"
_SECRETS = ("password", "sslpassword")

TAKING_SECONDS = 1.0
"""How long a study that is in use is tried for: the server notices within moments that a driver was killed."""


def parse(text: str) -> sa.URL:
    """A database URL, with the driver that it needs.

    Raises:
        BadStore: if it cannot be read, or is of a database that the store does not know. The text is not repeated,
            because it may hold a password.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):
        raise BadStore(f"cannot read the database URL; write {FORM}, special characters of a password as %XX")
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("postgresql+psycopg", "sqlite", "sqlite+pysqlite"):
        raise BadStore(f"no results store in {url.drivername}:// databases; a server is named by {FORM}")
    return url


def is_server(url: sa.URL) -> bool:
    return url.get_backend_name() == "postgresql"


def public(url: sa.URL) -> str:
    """The URL without its secrets, which can be printed and kept; the driver finds the password as libpq does."""
    query = {name: value for name, value in url.query.items() if name not in _SECRETS}
    plain = sa.URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database, query)
    return plain.render_as_string()


def engine(url: sa.URL) -> sa.Engine:
    """Connects when it is first used.

    Raises:
        BadStore: without the driver of the database.
    """
    if not is_server(url):
        return sa.create_engine(url)
    keepalive = {"idle": 30, "interval": 10, "count": 3}
    given: dict[str, Any] = {
        "connect_timeout": 10,
        "application_name": f"sparseflow {socket.gethostname()}:{os.getpid()}",
        # Either side notices within about a minute that the other's machine is gone. The server's default is two hours,
        # in which a study would stay in use by a driver that is no more.
        **{f"keepalives_{name}": value for name, value in keepalive.items()},
        "tcp_user_timeout": 60_000,
        "options": " ".join(f"-c tcp_keepalives_{name}={value}" for name, value in keepalive.items()),
    }
    try:
        args = {name: value for name, value in given.items() if name not in url.query}
        return sa.create_engine(url, connect_args=args, pool_pre_ping=True)
    except ImportError:
        raise BadStore('a PostgreSQL store needs a driver: pip install "sparseflow[postgres]"') from None


def reason(error: sa.exc.SQLAlchemyError) -> str:
    """What the database says, in one line."""
    cause = getattr(error, "orig", None) or error
    said = getattr(getattr(cause, "diag", None), "message_primary", None)
    return said or " ".join(str(cause).split())


def passes(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the same transaction may succeed later: the server went away or restarts, or broke a deadlock."""
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or state in ("40001", "40P01", "53300"):
        return True
    # Connecting fails without a state where nobody answers.
    return isinstance(error, sa.exc.OperationalError) and (state is None or state.startswith(("08", "57P")))


def lock_key(what: str) -> int:
    """The 64 bits by which the server knows a lock."""
    return int.from_bytes(sha256(f"sparseflow {what}".encode()).digest()[:8], "big", signed=True)


class Claim:
    """A study of a server, held by this process: the connection that has the lock.

    The driver reads and writes over this very connection, so nothing is written without the lock: what takes the
    connection takes the lock. The server lets go of it when the process dies, however it dies.

    Raises:
        Busy: if another process holds the study.
    """

    def __init__(self, on: sa.Engine, study: str, label: str) -> None:
        self._engine, self._study, self._label = on, study, label
        self._key = lock_key(f"study {study}")
        self._db: sa.Connection | None = None
        self._raw: Any = None
        end = time.monotonic() + TAKING_SECONDS
        while True:
            try:
                self.connection()
                return
            except Busy:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def connection(self) -> sa.Connection:
        """Made again, with the lock, where the server has taken it away.

        Raises:
            Busy: if another process has taken the study meanwhile.
        """
        if self._db is None or self._db.closed or self._db.invalidated:
            self.release()
            self._db = self._engine.connect()
            self._raw = self._db.connection.dbapi_connection
            self._db.detach()  # the pool would hand it, and the lock with it, to somebody else
            try:
                self._take(self._db)
            except BaseException:
                self.release()
                raise
        return self._db

    def _take(self, db: sa.Connection) -> None:
        with db.begin():
            if db.scalar(sa.select(sa.func.pg_try_advisory_lock(self._key))):
                return
            holder = db.scalar(_HOLDER, {"key": self._key})
        raise Busy(
            f"the study {self._study} on {self._label} is in use by {holder or 'another process'}; "
            "wait for it, or ask for another study"
        )

    def release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._raw.close()  # one that broke is forgotten by its wrapper, not closed
            self._db = None


# pg_locks shows the 64 bits of a key as two halves.
_HOLDER = sa.text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = :key "
    "AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
