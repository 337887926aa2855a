"""Whole studies on a database server: two at once, the same one twice, drivers killed, the server gone."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from sparseflow.cli import main
from sparseflow.core import BadStore
from sparseflow.study import DataCache, PartFile, Surroundings, find_group, reload, store_of

pytestmark = pytest.mark.slow

TIMES = ("started", "finished", "wall_s")
STUDY = """
kind: arms
base:
  data: {train_limit: 200}
  model: {depth: 1, width: 8}
  train: {epochs: 40, stack: never}
  measure: {points: 0}
arms:
  dense: {}
  half: {mask: {density: 0.5}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(STUDY)
    return path


def words_for(study: Path, seeds: int, out: Path, *more: str) -> list[str]:
    words = ["compare", study, "--seeds", seeds, "--jobs", "1", "--checkpoint-every", "0", "--out", out, *more]
    return list(map(str, words))


def begin(*words) -> subprocess.Popen:
    command = [sys.executable, "-m", "sparseflow", *words_for(*words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen, status: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said


def outcomes(out: Path) -> dict[str, dict]:
    """Run -> what the report says of it, but for times."""
    with (out / "runs.csv").open() as file:
        return {row["run"]: {k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> dict[str, dict]:
    """The outcomes of three seeds in a folder of their own, without a server."""
    out = tmp_path_factory.mktemp("whole")
    end(begin(study, 3, out))
    found = outcomes(out)
    assert len(found) == 6
    assert all(row["weights_digest"] for row in found.values())
    return found


def of_two(whole: dict[str, dict]) -> dict[str, dict]:
    return {run: row for run, row in whole.items() if row["seed"] != "2"}


def in_flight(process: subprocess.Popen, out: Path) -> None:
    while not list(out.glob("checkpoints/*.resume.pt")) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def test_two_studies_that_share_runs_at_once(study, database, whole, tmp_path):
    """Every run of the one is a run of the other; each ends with what it finds alone."""
    both = [begin(study, seeds, tmp_path / str(seeds), "--store", database) for seeds in (2, 3)]
    for process in both:
        end(process)
    assert outcomes(tmp_path / "2") == of_two(whole)
    assert outcomes(tmp_path / "3") == whole
    assert "4 runs, 0 of them executed now" in end(begin(study, 2, tmp_path / "elsewhere", "--store", database))
    assert outcomes(tmp_path / "elsewhere") == of_two(whole)


def test_the_same_study_twice_and_killed(study, database, whole, tmp_path):
    first = begin(study, 2, tmp_path / "a", "--store", database)
    in_flight(first, tmp_path / "a")
    os.kill(first.pid, signal.SIGSTOP)  # it is slow, not dead
    said = end(begin(study, 2, tmp_path / "b", "--store", database), status=2)
    assert f":{first.pid}; wait for it" in said
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    end(begin(study, 2, tmp_path / "b", "--store", database))
    assert outcomes(tmp_path / "b") == of_two(whole)


def test_a_server_that_crashes_and_comes_back(study, server, database, whole, tmp_path):
    process = begin(study, 2, tmp_path, "--store", database)
    in_flight(process, tmp_path)
    server.crash()
    time.sleep(1.0)
    server.start()
    end(process)
    assert outcomes(tmp_path) == of_two(whole)


def test_a_server_that_stays_away_costs_nothing_computed(study, server, database, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(import_module("sparseflow.study.database"), "PATIENCE", 1.0)
    monkeypatch.setattr(sys, "argv", ["sparseflow", *words_for(study, 2, tmp_path, "--store", database)])

    def crash():
        while not list(tmp_path.glob("checkpoints/*.resume.pt")):
            time.sleep(0.02)
        server.crash()

    killer = threading.Thread(target=crash)
    killer.start()
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        killer.join()
        server.start()
    said = capsys.readouterr()
    assert ended.value.code == 2
    (error,) = said.err.strip().splitlines()
    assert error.startswith(f"error: {database}: cannot write to the results store: ")
    assert "the same command goes on" in error
    assert list(tmp_path.glob("checkpoints/*.resume.pt"))
    monkeypatch.undo()
    end(begin(study, 2, tmp_path))
    assert {run: row | {"resumed_at": ""} for run, row in outcomes(tmp_path).items()} == {
        run: row | {"resumed_at": ""} for run, row in of_two(whole).items()
    }
    store = store_of(tmp_path)
    assert max(result["resumed_at"] for result in store.results().values()) > 0
    store.close()


def test_train_report_and_analyse_find_the_results_by_their_folder(database, tmp_path, monkeypatch, capsys):
    def call(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["sparseflow", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        assert status == code, said
        return said.err if code else said.out

    out, new = tmp_path / "run", tmp_path / "new"
    small = ["digits", "--set", "train.epochs=2", "--set", "mask.density=0.5", "--set", "model.width=8"]
    call("train", *small, "--out", out, "--store", database)
    call("train", *small, "--set", "seed=1", "--out", tmp_path / "other", "--store", database)
    assert not (out / "results.db").exists()
    curves = (out / "curves.csv").read_text()
    (out / "curves.csv").unlink()
    call("report", out)
    assert (out / "curves.csv").read_text() == curves
    (run,) = find_group(str(out)).runs
    assert reload(run, DataCache(Surroundings())).model is not None
    with pytest.raises(BadStore, match="holds the results of a study"):
        PartFile(out)
    # A machine without the folder names the study.
    new.mkdir()
    unnamed = call("report", new, "--store", database, code=2)
    assert "holds 2 studies; name one with --study: train-" in unnamed
    name = unnamed.strip().rpartition(" ")[2]  # the one asked for first
    call("report", new, "--store", database, "--study", name)
    assert (new / "curves.csv").read_text() == curves
    assert f"unknown study of {database} 'x' (known: train-" in call(
        "report", new, "--store", database, "--study", "x", code=2
    )
