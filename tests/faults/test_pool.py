"""The pool supervises: dead workers are replaced, raising runs are recorded, interrupts leave checkpoints."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing import active_children

import pytest

from sparseflow.core import BadStore, Busy
from sparseflow.study import (
    DataCache,
    Interrupted,
    Listed,
    Planned,
    Pool,
    RunSpec,
    Store,
    Surroundings,
    crew,
    drive,
    facts_of,
)
from sparseflow.study.lock import locked
from watchers import Quiet


def collect(specs, where, jobs=1, on_event=None):
    events = []

    def handle(event):
        events.append(event)
        if on_event:
            on_event(event, events)

    groups = [[task] if isinstance(task, RunSpec) else task for task in specs]
    Pool(jobs).run(Listed(groups), where, handle)
    return events


def carry_out(runs, out, where, watcher, **words):
    return drive(Planned(runs), out, where, Pool(1), watcher, **words)


def ended(events):
    return {e.spec.name: e.payload for e in events if e.kind == "ended"}


def facts(small):
    found = facts_of(small(), DataCache(Surroundings()))
    return lambda run: found


def none(run):
    raise AssertionError("there are no runs to have facts of")


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(small, tmp_path):
    specs = [small(seed=s) for s in range(3)]
    killed = []

    def kill_once(event, events):
        if event.kind == "started" and not killed:
            killed.append(active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    results = ended(collect(specs, Surroundings(checkpoints=tmp_path), on_event=kill_once))
    quiet = ended(collect(specs, Surroundings(), jobs=2))
    assert killed
    assert {n: r.digest for n, r in results.items()} == {n: r.digest for n, r in quiet.items()}
    assert not active_children()


def test_a_run_whose_worker_always_dies_is_given_up(small):
    def kill(event, events):
        if event.kind == "started":
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)

    (result,) = ended(collect([small()], Surroundings(), on_event=kill)).values()
    assert result.status == "failed"
    assert f"died {crew.ATTEMPTS} times (killed by signal 9)" in result.error


@pytest.mark.slow
def test_a_killed_worker_costs_its_group_nothing(small, tmp_path):
    specs = [small(seed=s) for s in range(4)]
    killed = []

    def kill_once(event, events):
        if event.kind == "started" and len(events) == 3 and not killed:
            killed.append(active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    events = collect([specs[:3], specs[3]], Surroundings(checkpoints=tmp_path), on_event=kill_once)
    quiet = ended(collect([specs[2], [specs[3], specs[1], specs[0]]], Surroundings()))
    assert killed
    assert [e.spec.seed for e in events if e.kind == "started"] == [0, 1, 2, 0, 1, 2, 3]
    assert {n: r.digest for n, r in ended(events).items()} == {n: r.digest for n, r in quiet.items()}
    assert all(r.stacked and r.status == "finished" for r in quiet.values())


@pytest.mark.slow
def test_one_that_kills_its_workers_does_not_take_its_group_along(small):
    """In the last attempt each run of a group has a worker of its own."""
    specs = [small(seed=s) for s in range(3)]
    last = {spec.name: 0 for spec in specs}

    def kill(event, events):
        if event.kind == "started":
            last[event.spec.name] += 1
            if event.spec is specs[1]:
                for child in active_children():
                    os.kill(child.pid, signal.SIGKILL)

    results = ended(collect([specs], Surroundings(), on_event=kill))
    assert [results[spec.name].status for spec in specs] == ["finished", "failed", "finished"]
    assert last == dict.fromkeys(last, crew.ATTEMPTS)


def test_a_raising_run_is_recorded_and_the_others_go_on(small):
    bad = small(data={"name": "/nowhere/at-all.npz"})
    results = ended(collect([bad, small()], Surroundings()))
    assert results[bad.name].status == "failed"
    assert "/nowhere/at-all.npz" in results[bad.name].error
    assert results[small().name].status == "finished"


def test_an_interrupt_leaves_checkpoints_and_goes_on(small, tmp_path):
    spec = small(train={"epochs": 2000}, measure={"points": 0})
    seen = []

    class Impatient(Quiet):
        def event(self, event):
            seen.append(event.kind)
            if event.kind == "rows":
                raise KeyboardInterrupt

    where = Surroundings(checkpoints=tmp_path / "checkpoints")
    study = ("s", "train", {})
    with pytest.raises(Interrupted, match="1 of 1 runs to go"):
        carry_out([spec], tmp_path, where, Impatient(), study=study, facts=facts(small))
    assert "rows" in seen
    assert where.resume_path(spec.name).is_file()
    assert not active_children()


def test_finished_runs_are_not_repeated_and_failed_ones_are(small, tmp_path):
    where, study = Surroundings(checkpoints=tmp_path / "c"), ("s", "train", {})
    good, bad = small(), small(data={"name": "/nowhere/at-all.npz"})
    first = carry_out([good, bad], tmp_path, where, Quiet(), study=study, facts=facts(small))
    again = carry_out([good, bad], tmp_path, where, Quiet(), study=study, facts=facts(small))
    assert (first.executed, again.executed) == (2, 1)
    assert list(first.failed) == [bad.name]


@pytest.mark.slow
def test_weights_asked_for_later_are_made_again(small, tmp_path):
    study, run = ("s", "train", {}), small()
    carry_out(
        [run],
        tmp_path,
        Surroundings(checkpoints=tmp_path / "c"),
        Quiet(),
        study=study,
        facts=facts(small),
    )
    keeping = Surroundings(checkpoints=tmp_path / "c", keep=True)
    assert carry_out([run], tmp_path, keeping, Quiet(), study=study, facts=facts(small)).executed == 1
    assert keeping.final_path(run.name).is_file()
    assert carry_out([run], tmp_path, keeping, Quiet(), study=study, facts=facts(small)).executed == 0


def test_a_second_driver_is_kept_out(small, tmp_path):
    with locked(tmp_path), pytest.raises(Busy, match=f"in use by process {os.getpid()}"):
        carry_out([small()], tmp_path, Surroundings(), Quiet(), study=("s", "train", {}), facts=facts(small))


def test_rows_of_a_run_in_flight_are_in_the_store(small, tmp_path):
    """Measured values reach the store while the run goes on, so a report can be written meanwhile."""
    spec = small(train={"epochs": 3000}, measure={"points": 0})

    class Reader(Quiet):
        found = None

        def event(self, event):
            if event.kind == "rows" and self.found is None:
                store = Store(tmp_path)
                self.found = store.series(["train_loss"]), store.statuses()
                store.close()
                raise KeyboardInterrupt

    reader = Reader()
    with pytest.raises(Interrupted):
        carry_out(
            [spec],
            tmp_path,
            Surroundings(checkpoints=tmp_path),
            reader,
            study=("s", "train", {}),
            facts=facts(small),
        )
    series, statuses = reader.found
    assert series[spec.name]["train_loss"]
    assert statuses == {spec.name: "running"}


@pytest.mark.slow
def test_a_run_whose_result_cannot_be_written_keeps_its_checkpoint(small, tmp_path, monkeypatch):
    """The checkpoint goes only when the result is in the store."""

    def full(self, spec, result):
        raise BadStore("database or disk is full")

    spec = small(train={"epochs": 3})
    where = Surroundings(checkpoints=tmp_path / "c", checkpoint_seconds=0.0)
    words = {"study": ("s", "train", {}), "facts": facts(small)}
    monkeypatch.setattr(Store, "put_result", full)
    with pytest.raises(BadStore, match="disk is full"):
        carry_out([spec], tmp_path, where, Quiet(), **words)
    assert where.resume_path(spec.name).is_file()
    monkeypatch.undo()
    carry_out([spec], tmp_path, where, Quiet(), **words)
    store = Store(tmp_path)
    assert store.results()[spec.name]["resumed_at"] == 3
    store.close()
    assert not where.resume_path(spec.name).exists()


def test_runs_on_other_data_are_not_mixed_in(small, tmp_path):
    words = {"study": ("s", "train", {}), "facts": facts(small)}
    carry_out([small()], tmp_path, Surroundings(), Quiet(), **words)
    other = replace(facts(small)(small()), digest="else")
    with pytest.raises(BadStore, match=r"made on other data .* give another --out"):
        carry_out([small()], tmp_path, Surroundings(), Quiet(), **{**words, "facts": lambda run: other})


def test_a_folder_holds_one_kind_of_study(small, tmp_path):
    carry_out([], tmp_path, Surroundings(), Quiet(), study=("s", "compare", {}), facts=none)
    with pytest.raises(BadStore, match=r"holds a study of kind 'compare'; give this one another --out"):
        carry_out([], tmp_path, Surroundings(), Quiet(), study=("t", "train", {}), facts=none)


def test_leftovers_of_a_killed_save_are_swept(small, tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "x.resume.123.tmp").write_bytes(b"half")
    carry_out([], tmp_path, Surroundings(checkpoints=folder), Quiet(), study=("s", "train", {}), facts=none)
    assert not list(folder.iterdir())
