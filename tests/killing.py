"""Studies killed at random moments, and what they leave."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparseflow.study import Store

TIMES = ("started", "finished", "wall_s")
SEARCH = [
    "search", "digits", "--samples", "6", "--seeds", "1", "--set", "base.train.epochs=60", "--set", "rivals={}",
    "--set", "base.data.train_limit=600",
]  # fmt: skip
WORKERS = (b"multiprocessing.spawn", b"ray::Node")
"""What the command lines of processes that train have in them: a pool's, and a cluster's."""


def command(study: Sequence[str], out: Path, jobs: int, *more: str) -> list[str]:
    """Of a study that writes a checkpoint after every epoch."""
    where = ["--out", str(out), "--jobs", str(jobs), "--checkpoint-every", "0"]
    return [sys.executable, "-m", "sparseflow", *study, *where, *more]


def outcome(out: Path) -> dict[str, list[dict]]:
    """Every table that the report wrote, but for times."""
    found = {}
    for path in sorted(out.glob("*.csv")):
        with path.open() as file:
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return found


def below(pid: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    try:
        children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *below(child))]


def workers(pid: int) -> list[int]:
    """Those of a study's processes that train."""
    return [p for p in below(pid) if any(word in _command_line(p) for word in WORKERS)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def kill_at_random(words: Sequence[str], out: Path, draw: random.Random, env: Mapping[str, str] | None = None) -> bool:
    """Start a study; kill one of its workers, then its driver, each once there is work to lose.

    Returns:
        Whether a worker was killed.
    """
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    _wait_for_a_checkpoint(process, out)
    time.sleep(draw.uniform(0.0, 2.0))
    at_work = workers(process.pid)
    if at_work:
        os.kill(draw.choice(at_work), signal.SIGKILL)
        _wait_for_a_checkpoint(process, out)
        time.sleep(draw.uniform(0.0, 2.0))
    orphans = workers(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(alive(child) for child in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in orphans if alive(child)], "a killed study left a worker that goes on"
    return bool(at_work)


def _checkpoints(out: Path) -> set[tuple[Path, int]]:
    found = set()
    for path in out.glob("checkpoints/*.resume.pt"):
        try:
            found.add((path, path.stat().st_mtime_ns))
        except FileNotFoundError:  # its run has ended in between
            continue
    return found


def _wait_for_a_checkpoint(process: subprocess.Popen, out: Path) -> None:
    """Starting takes seconds, in which there is nothing to lose."""
    before = _checkpoints(out)
    while _checkpoints(out) <= before and process.poll() is None:
        time.sleep(0.1)


def resumed(out: Path) -> int:
    """The latest epoch that a run of a finished study went on from."""
    store = Store(out)
    try:
        return max(result["resumed_at"] for result in store.results().values())
    finally:
        store.close()
