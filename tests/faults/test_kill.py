"""SIGKILL at random moments, restarted: the same results as an unbroken study, at any number of workers."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparseflow.study import Store

TIMES = ("started", "finished", "wall_s")
PAIRS = [
    "compare", "digits", "--seeds", "2", "--set", "train.epochs=150", "--set", "compare.dense_widths=[0.4]",
    "--set", "compare.variants=[NR, DA_BN_DO]",
]  # fmt: skip
ARMS = ["compare", "arms-digits", "--seeds", "2", "--set", "base.train.epochs=150", "--set", "grid_seeds=2"]
SEARCH = [
    "search", "digits", "--samples", "6", "--seeds", "1", "--set", "base.train.epochs=60", "--set", "rivals={}",
    "--set", "base.data.train_limit=600",
]  # fmt: skip


def command(out: Path, jobs: int, study: list[str] = PAIRS) -> list[str]:
    return [
        sys.executable,
        "-m",
        "sparseflow",
        *study,
        "--out",
        str(out),
        "--jobs",
        str(jobs),
        "--checkpoint-every",
        "0",
    ]


def outcome(out: Path) -> dict[str, list[dict]]:
    """Every table that the report wrote, but for times."""
    found = {}
    for path in sorted(out.glob("*.csv")):
        with path.open() as file:
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return found


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(p) for p in children.read_text().split()] if children.exists() else []


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "jobs"),
    [(PAIRS, 1), (PAIRS, 2), (ARMS, 2), (SEARCH, 2)],
    ids=["pairs-1", "pairs-2", "arms-2", "search-2"],
)
def test_killed_three_times_equals_unbroken(study, jobs, tmp_path):
    subprocess.run(command(tmp_path / "whole", 2, study), check=True, capture_output=True)
    expected = outcome(tmp_path / "whole")
    assert all(row["weights_digest"] for row in expected["runs.csv"])
    draw = random.Random(jobs)
    broken = tmp_path / "broken"
    for _ in range(3):
        process = subprocess.Popen(command(broken, jobs, study), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(broken.glob("checkpoints/*.resume.pt")) and process.poll() is None:
            time.sleep(0.1)  # starting takes seconds, in which there is nothing to lose
        time.sleep(draw.uniform(0.0, 3.0))
        children = workers_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while any(alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [child for child in children if alive(child)], "a killed study left an orphan"
    subprocess.run(command(broken, jobs, study), check=True, capture_output=True)
    assert outcome(broken) == expected
    store = Store(broken)
    assert max(result["resumed_at"] for result in store.results().values()) > 0, "no run went on from a checkpoint"
    store.close()
    assert not list((broken / "checkpoints").iterdir())


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "out", 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not list((tmp_path / "out").glob("results.db")):
        time.sleep(0.2)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in output
    assert "Traceback" not in output
    assert (tmp_path / "out" / "report.html").is_file()
