"""Several drivers on one database server: each study has one, each sees its own, and a server may go away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest

from sparseflow.core import BadStore, Busy
from sparseflow.study import RunResult, RunSpec, Store, store_of
from sparseflow.study.place import store_to_drive

DATABASE = import_module("sparseflow.study.database")

pytestmark = pytest.mark.slow  # they need the server

ONE, OTHER, BOTH = (RunSpec(seed=seed) for seed in (1, 2, 3))


@pytest.fixture
def opened():
    """Makes stores, and closes them."""
    made = []

    def make(*words, **named):
        made.append((Store if "create" in named or "studies" in named else store_to_drive)(*words, **named))
        return made[-1]

    yield make
    for store in made:
        store.close()


def carry_out(store, study, runs, accuracy):
    store.adopt(run.name for run in runs)
    store.put_study(study, "arms", {"spec": study})
    for run in runs:
        store.start_run(run)
        store.put_metrics(run.name, [(1, 0.5, "loss", "", accuracy), (1, 0.5, "point", "", 0.0)])
        store.put_result(run, RunResult("finished", {"test_accuracy": accuracy}))


def test_each_study_sees_its_own_and_shares_what_both_hold(opened, database, tmp_path):
    a, b = opened(tmp_path / "a", database, "a"), opened(tmp_path / "b", database, "b")
    carry_out(a, "a", [ONE, BOTH], 0.5)
    carry_out(b, "b", [OTHER], 0.25)
    assert b.statuses().keys() == {OTHER.name}
    b.adopt([BOTH.name])
    for store, name, own in ((a, "a", ONE), (b, "b", OTHER)):
        both = {own.name, BOTH.name}
        assert [study[0] for study in store.studies()] == [name]
        assert store.statuses().keys() == store.results().keys() == store.specs().keys() == both
        assert store.series(["loss"]).keys() == store.epochs().keys() == both
        assert store.series(["loss"], points_only=True).keys() == {run for run, *_ in store.values(["loss"])} == both
    everything = opened(database, create=False)
    assert {study[0] for study in everything.studies()} == {"a", "b"}
    assert len(everything.results()) == 3
    a.close()
    # The folder remembers, the latest study first, and another study of it stays beside the first.
    again = opened(tmp_path / "a", None, "c")
    carry_out(again, "c", [OTHER], 0.25)
    assert [study[0] for study in again.studies()] == ["c", "a"]
    assert json.loads((tmp_path / "a" / "store.json").read_text()) == {"url": database, "studies": ["c", "a"]}
    reader = store_of(tmp_path / "a")
    assert len(reader.results()) == 3
    reader.narrow("c")
    assert reader.results().keys() == {OTHER.name}
    reader.close()


def test_many_may_make_the_tables_at_once(database):
    with ThreadPoolExecutor(8) as threads:
        for store in threads.map(lambda k: Store(database, create=True), range(8)):
            assert store.studies() == []
            store.close()


def test_a_database_without_results_is_said(database):
    with pytest.raises(BadStore, match="no results here; run a study with --store first"):
        Store(database)


def test_a_newer_schema_is_refused(server, database):
    Store(database, create=True).close()
    server.say(database.rpartition("/")[2], "UPDATE meta SET value = '99'")
    with pytest.raises(BadStore, match=r"schema 99, .* use the newer sparseflow that made it, or another --store"):
        Store(database, create=True)


def test_one_study_has_one_driver_and_a_killed_one_lets_go(opened, database, tmp_path):
    words = "import sys, time; from pathlib import Path; from sparseflow.study.place import store_to_drive as open"
    words += f"; store = open(Path({str(tmp_path / 'a')!r}), {database!r}, 'study'); print('held', flush=True)"
    process = subprocess.Popen([sys.executable, "-c", words + "; time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            Busy, match=rf"the study study on {database} is in use by sparseflow .*:{process.pid}; wait"
        ):
            opened(tmp_path / "b", database, "study")
        assert not (tmp_path / "b").exists()
        opened(tmp_path / "c", database, "another study")
        os.kill(process.pid, signal.SIGKILL)
        opened(tmp_path / "b", database, "study")


def test_a_server_that_comes_back_is_waited_for(opened, server, database, tmp_path):
    store = opened(tmp_path, database, "study")
    carry_out(store, "study", [ONE], 0.5)
    server.crash()
    threading.Timer(1.5, server.start).start()
    carry_out(store, "study", [OTHER], 0.25)
    assert store.results().keys() == {ONE.name, OTHER.name}
    with pytest.raises(Busy):  # the lock came back with the connection
        opened(tmp_path / "b", database, "study")


def test_a_server_that_stays_away_is_one_clear_error(opened, server, database, tmp_path, monkeypatch):
    monkeypatch.setattr(DATABASE, "PATIENCE", 1.0)
    store = opened(tmp_path, database, "study")
    server.crash()
    try:
        said = r"cannot write to the results store: .*refused.*\(1 s waited; the same command goes on\)"
        with pytest.raises(BadStore, match=said):
            store.start_run(ONE)
        begun = time.monotonic()
        with pytest.raises(BadStore):
            store.put_metrics(ONE.name, [(1, 0.5, "loss", "", 1.0)])
        assert time.monotonic() - begun < 0.9  # once is enough
    finally:
        server.start()
    store.start_run(ONE)


def test_who_has_lost_the_study_writes_no_more(opened, server, database, tmp_path, monkeypatch):
    monkeypatch.setattr(DATABASE, "PATIENCE", 0.5)
    first = opened(tmp_path / "a", database, "study")
    first.adopt([ONE.name])
    name = database.rpartition("/")[2]
    server.say(
        name,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )
    second = opened(tmp_path / "b", database, "study")
    with pytest.raises(Busy, match="in use by sparseflow"):
        first.put_metrics("r", [(1, 0.5, "loss", "", 1.0)])
    second.put_metrics("r", [(1, 0.5, "loss", "", 2.0)])
    first.close()
    everything = opened(database, create=False)
    assert everything.series(["loss"]) == {"r": {"loss": [(1, 2.0)]}}


def test_two_that_write_the_same_rows_at_once_both_come_through(opened, database):
    rows = [(step, 0.0, metric, layer, 1.0) for step in range(20) for metric in "ab" for layer in "xyz"]
    stores = [opened(database, create=True) for _ in range(4)]

    def write(k):
        for _ in range(15):
            stores[k].put_metrics("r", rows if k % 2 else rows[::-1])
            stores[k].start_run(ONE)
            stores[k].put_result(ONE, RunResult("finished", {"test_accuracy": 0.5}))
        return k

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write, range(4))) == [0, 1, 2, 3]
    assert len(stores[0].values("ab")) == len(rows)
    assert stores[0].results()[ONE.name]["final"] == {"test_accuracy": 0.5}


def test_a_password_is_used_and_appears_nowhere(opened, server, database, tmp_path):
    name = database.rpartition("/")[2]
    server.say(name, "DROP ROLE IF EXISTS secretive; CREATE ROLE secretive LOGIN SUPERUSER PASSWORD 'hush@/x'")
    at = f"127.0.0.1:{server.port}/{name}"
    with pytest.raises(BadStore, match="password authentication failed") as error:
        opened(tmp_path, f"postgresql://secretive:wrong-hush@{at}", "study")
    assert "hush" not in str(error.value)
    store = opened(tmp_path, f"postgresql://secretive:hush%40%2Fx@{at}", "study")
    assert store.label == f"postgresql://secretive@{at}"
    assert "hush" not in (tmp_path / "store.json").read_text()
    with pytest.raises(BadStore, match=r"cannot use the results store: .*password"):
        store_of(tmp_path)
