"""The results store: upserts, order, versions, what cannot be opened."""

from __future__ import annotations

import sqlite3
from math import isnan

import pytest

from sparseflow.core import BadStore
from sparseflow.study import RunResult, RunSpec, Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, create=True)
    yield store
    store.close()


def test_a_value_entered_twice_is_there_once(store):
    store.put_metrics("r", [(1, 0.5, "loss", "", 2.0), (2, 1.0, "loss", "", 3.0)])
    store.put_metrics("r", [(2, 1.0, "loss", "", 4.0), (2, 1.0, "loss", "layer", 9.0)])
    assert store.series(["loss"]) == {"r": {"loss": [(1, 2.0), (2, 4.0)]}}


def test_points_only_gives_the_probes_steps(store):
    store.put_metrics("r", [(s, s / 2, "loss", "", float(s)) for s in range(4)] + [(2, 1.0, "point", "", 0.0)])
    assert store.series(["loss"], points_only=True) == {"r": {"loss": [(2, 2.0)]}}


def test_values_that_are_not_finite_come_back_as_nan(store):
    store.put_metrics("r", [(1, 0.5, "loss", "", float("inf")), (2, 0.5, "loss", "", float("nan"))])
    assert all(isnan(v) for _, v in store.series(["loss"])["r"]["loss"])


def test_a_result_keeps_its_start(store):
    spec = RunSpec()
    store.start_run(spec)
    assert store.statuses() == {spec.name: "running"}
    assert store.results() == {}
    store.put_result(spec, RunResult("finished", {"test_accuracy": 0.9}, notes=("n",)))
    result = store.results()[spec.name]
    assert result["final"] == {"test_accuracy": 0.9}
    assert result["started"] < result["finished"]


def test_the_study_last_asked_for_comes_first(store):
    for name in ("a", "b", "a"):
        store.put_study(name, "compare", {"spec": {}})
    assert [name for name, _, _ in store.studies()] == ["a", "b"]


def test_a_newer_schema_is_refused(tmp_path):
    Store(tmp_path, create=True).close()
    with sqlite3.connect(tmp_path / "results.db") as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    db.close()
    with pytest.raises(BadStore, match=r"schema 99, this version knows up to 1; use the newer sparseflow"):
        Store(tmp_path, create=True)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "results.db").write_text("not a database, but long enough to be looked at" * 40)
    with pytest.raises(BadStore, match="not a database"):
        Store(tmp_path, create=True)


def test_a_folder_without_a_store_is_said(tmp_path):
    with pytest.raises(BadStore, match=r"no results.db here; run a study with --out"):
        Store(tmp_path)
