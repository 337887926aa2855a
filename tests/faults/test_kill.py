"""SIGKILL at random moments, restarted: the same results as an unbroken study, at any number of workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from killing import SEARCH, command, kill_at_random, outcome, resumed

PAIRS = [
    "compare", "digits", "--seeds", "2", "--set", "train.epochs=150", "--set", "compare.dense_widths=[0.4]",
    "--set", "compare.variants=[NR, DA_BN_DO]",
]  # fmt: skip
ARMS = ["compare", "arms-digits", "--seeds", "2", "--set", "base.train.epochs=150", "--set", "grid_seeds=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "jobs"),
    [(PAIRS, 1), (PAIRS, 2), (ARMS, 2), (SEARCH, 2)],
    ids=["pairs-1", "pairs-2", "arms-2", "search-2"],
)
def test_killed_three_times_equals_unbroken(study, jobs, tmp_path):
    subprocess.run(command(study, tmp_path / "whole", 2), check=True, capture_output=True)
    expected = outcome(tmp_path / "whole")
    assert all(row["weights_digest"] for row in expected["runs.csv"])
    draw = random.Random(jobs)
    broken = tmp_path / "broken"
    killed = [kill_at_random(command(study, broken, jobs), broken, draw) for _ in range(3)]
    assert any(killed), "no worker was there to be killed"
    subprocess.run(command(study, broken, jobs), check=True, capture_output=True)
    assert outcome(broken) == expected
    assert resumed(broken) > 0, "no run went on from a checkpoint"
    assert not list((broken / "checkpoints").iterdir())


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path):
    with subprocess.Popen(
        command(PAIRS, tmp_path / "out", 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        while not list((tmp_path / "out").glob("results.db")):
            time.sleep(0.2)
        time.sleep(5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
        try:
            output, _ = process.communicate(timeout=600)  # on a busy machine the page alone takes a minute
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the same command goes on from here" in output
    assert "Traceback" not in output
    assert (tmp_path / "out" / "report.html").is_file()
