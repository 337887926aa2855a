"""A PostgreSQL server of the tests' own: a folder under the temporary one, a free port, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest

HBA = """
local all all trust
host all secretive 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


# A test run that is killed closes the pipe, and its server goes too.
GUARDED = 'exec 3<&0; "$@" </dev/null & pid=$!; (cat <&3; kill -QUIT $pid) >/dev/null 2>&1 & wait $pid'


class Server:
    """Started by `start`; its databases sort as people do (ICU, en-US), which is not how SQLite does."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
        binary = shutil.which("postgres") or (str(found[-1]) if found else None)
        if binary is None:
            pytest.skip("there is no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
        self._bin = Path(binary).parent
        # The server refuses to run as root.
        users = [name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}]
        self._user = pwd.getpwnam(users[0]) if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="sparseflow-pg-"))
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen | None = None
        self._names = (f"db{k}" for k in count())
        how = "-A trust -U tester --no-sync -E UTF8 --locale=C --locale-provider=icu --icu-locale=en-US"
        made = self._as_user("initdb", "-D", self.folder / "data", *how.split())
        assert made.wait(60) == 0, (self.folder / "log").read_text()
        made.stdin.close()
        (self.folder / "data" / "pg_hba.conf").write_text(HBA)

    def url(self, database: str, user: str = "tester") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = ["-k", self.folder, "-p", self.port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self._process = self._as_user("postgres", "-D", self.folder / "data", *settings)
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.say("postgres", "SELECT 1")
            except Exception:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def crash(self) -> None:
        """End every session at once, as when the machine goes down."""
        self._process.stdin.close()
        self._process.wait(30)

    def remove(self) -> None:
        if self._process is not None:
            self.crash()
        shutil.rmtree(self.folder)

    def database(self) -> str:
        """The URL of a new one."""
        name = next(self._names)
        self.say("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def say(self, database: str, statement: str) -> list:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as db:
            cursor = db.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _as_user(self, program: str, *words: object) -> subprocess.Popen:
        log = (self.folder / "log").open("a")
        other = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        with log:
            command = ["sh", "-c", GUARDED, "sh", str(self._bin / program), *map(str, words)]
            how = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "cwd": self.folder}
            return subprocess.Popen(command, start_new_session=True, **how, **other)
