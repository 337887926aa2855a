"""The results store: upserts, order, versions, what cannot be opened."""

from __future__ import annotations

import sqlite3
from math import isnan

import pytest

from sparseflow.core import BadStore
from sparseflow.study import RunResult, RunSpec, Store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request, tmp_path):
    where = tmp_path if request.param == "sqlite" else request.getfixturevalue("database")
    store = Store(where, create=True)
    yield store
    store.close()


def test_a_value_entered_twice_is_there_once(store):
    store.put_metrics("r", [(1, 0.5, "loss", "", 2.0), (2, 1.0, "loss", "", 3.0)])
    store.put_metrics("r", [(2, 1.0, "loss", "", 4.0), (2, 1.0, "loss", "layer", 9.0)])
    assert store.series(["loss"]) == {"r": {"loss": [(1, 2.0), (2, 4.0)]}}


def test_of_a_value_twice_in_one_batch_the_last_counts(store):
    store.put_metrics("r", [(1, 0.5, "loss", "", 2.0), (0, 0.0, "loss", "", 1.0), (1, 0.5, "loss", "", 3.0)])
    assert store.series(["loss"]) == {"r": {"loss": [(0, 1.0), (1, 3.0)]}}


def test_numbers_come_back_bit_for_bit(store):
    values = [0.1, 5e-324, 1.7976931348623157e308, 1 / 3]
    rows = [(2**40 + k, 2**40 / 3, "loss", "", value) for k, value in enumerate(values)]
    store.put_metrics("r", rows)
    found = store.values(["loss"])
    assert [repr(row[5]) for row in found] == [repr(value) for value in values]
    assert [row[1:3] for row in found] == [row[:2] for row in rows]


def test_names_are_sorted_by_their_bytes(store):
    names = ["ab", "aB", "a_b", "a.c", "B", "Ä", "ä", "z", "a b", "0.weight", "10.weight", "2.weight"]
    store.put_metrics("r", [(1, 0.0, "loss", name, 1.0) for name in names])
    assert [row[3] for row in store.values(["loss"])] == sorted(names)
    for name in names:
        store.put_metrics(name, [(1, 0.0, "loss", "", 1.0)])
    assert list(store.series(["loss"])) == sorted(names)
    assert list(store.epochs()) == sorted(names)


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


def test_what_is_done_is_not_taken_away(store):
    """Another study may be at the same run, or the same one make it again for its weights."""
    spec = RunSpec()
    store.start_run(spec)
    store.put_result(spec, RunResult("failed", error="out of \0 memory: ä \ud800"))
    assert store.results()[spec.name]["error"] == "out of \0 memory: ä \ud800"
    store.start_run(spec)
    assert (store.statuses(), store.results()) == ({spec.name: "running"}, {})
    store.put_result(spec, RunResult("finished", {"test_accuracy": 0.1}))
    store.start_run(spec)
    store.put_result(spec, RunResult("stopped"))
    assert store.statuses() == {spec.name: "finished"}
    assert store.results()[spec.name]["final"] == {"test_accuracy": 0.1}
    store.put_result(spec, RunResult("finished", {"test_accuracy": 0.2}))
    assert store.results()[spec.name]["final"] == {"test_accuracy": 0.2}


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
