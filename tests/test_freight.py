"""What a cluster adds to a pool, without a cluster: files and data travel, workers come late or never."""

from __future__ import annotations

import sys
from collections import deque

import pytest

from sparseflow.cli import main
from sparseflow.core import BadValue
from sparseflow.data.dataset import digest_of
from sparseflow.study import Cluster, DataCache, Listed, Surroundings, execute, predecessor
from sparseflow.study.crew import Crew, InHand
from sparseflow.study.freight import ReadThere, Shipped, consignment, named_files, needed, pack, scratch, unpack
from sparseflow.study.node import Node

LOTTERY = {"lottery": {"round": 1, "fraction": 0.5, "rewind_step": 2}, "twin_width": None}


def carried_out(runs, driver, where, rungs=(), hear=lambda node, message: None):
    """Task, node and driver in one process, with a folder each: the results by name, and what was said, in order."""
    node = Node(where)
    data = {(run.data.name, run.data.image_size): run.data for run in runs}
    node.begin(
        InHand(tuple(runs), rungs).order,
        pack(needed(runs, driver)),
        named_files(runs, driver),
        {key: lambda section=section: consignment(section, DataCache(driver)) for key, section in data.items()},
    )
    said, results = [], {}
    while not said or said[-1][0] not in ("done", "broke"):
        for kind, content in node.drain(1.0, 0.0):
            said.append((kind, content))
            hear(node, (kind, content))
            if kind == "files" and driver.checkpoints is not None:
                unpack(content, driver.checkpoints)
            elif kind == "ended":
                results[content[0]] = content[1]
    assert said[-1][0] == "done", said[-1]
    return results, said


def test_a_data_set_arrives_bit_for_bit(small, cache):
    dataset = cache.dataset(small().data)
    arrived = Shipped.of(dataset).unpacked()
    assert arrived.digest == dataset.digest == digest_of(arrived.train, arrived.test)
    same = ("name", "classes", "class_names", "flip_ok", "notes", "brightest")
    assert [getattr(arrived, name) for name in same] == [getattr(dataset, name) for name in same]


def test_what_is_streamed_is_read_there_and_must_be_the_same(small, cache):
    run = small()
    dataset = cache.dataset(run.data)
    node = Node(Surroundings())
    node._cache.receive((run.data.name, None), ReadThere("else"))
    with pytest.raises(Exception, match=f"has the digest {dataset.digest}, but else where the study was started"):
        node._cache.dataset(run.data)


def test_a_run_goes_on_on_another_machine_from_what_it_sent(small, cache, tmp_path):
    run = small(train={"epochs": 6})
    driver = Surroundings(checkpoints=tmp_path / "driver", checkpoint_seconds=0.0, keep=True)

    def stop(node, message):
        if message[0] == "rung":
            node.stop()

    held, said = carried_out([run], driver, driver, (3,), stop)
    assert (held[run.name]["status"], held[run.name]["epoch"]) == ("stopped", 3)
    kinds = [kind for kind, _ in said]
    assert kinds.index("files") < kinds.index("ended"), "a result before its files could be lost with them"
    assert not driver.final_path(run.name).exists()
    ended, _ = carried_out([run], driver, driver)
    assert (ended[run.name]["status"], ended[run.name]["resumed_at"]) == ("finished", 3)
    assert ended[run.name]["digest"] == execute(run, Surroundings(), cache).digest
    assert driver.final_path(run.name).is_file()


def test_what_runs_leave_for_each_other_travels(small, cache, tmp_path):
    """The rounds of a lottery, each on another machine."""
    later = small(mask=LOTTERY)
    first = predecessor(later)
    driver = Surroundings(checkpoints=tmp_path / "driver")
    local = Surroundings(checkpoints=tmp_path / "local")
    for run in (first, later):
        results, _ = carried_out([run], driver, driver)
        assert results[run.name]["status"] == "finished", results[run.name]["error"]
        assert results[run.name]["digest"] == execute(run, local, cache).digest
    left = {path.name for path in driver.checkpoints.iterdir()}
    assert left == {driver.final_path(run.name).name for run in (first, later)} | {
        driver.rewind_path(first.name, 2).name
    }


def test_data_that_the_driver_cannot_read_fail_the_run_with_its_words(small, tmp_path):
    bad = small(data={"name": str(tmp_path / "nowhere.npz")})
    results, _ = carried_out([bad], Surroundings(), Surroundings())
    assert results[bad.name]["status"] == "failed"
    assert results[bad.name]["error"].startswith(f"{tmp_path / 'nowhere.npz'}")


def test_scratch_that_a_killed_worker_left_is_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as mine:
        left = mine.parent / "left"
        left.mkdir()
        (left / ".lock").touch()
        with scratch() as other:
            assert mine.is_dir()
            assert other != mine
            assert not left.exists()
    assert [path.name for path in mine.parent.iterdir()] == [".lock"]


class Half:
    """A staff of whom only the first ever comes, when it is listened for; it does every task at once."""

    def __init__(self):
        self.hired = []

    def hire(self):
        self.hired.append(Hand())
        return self.hired[-1]

    def listen(self, workers, seconds):
        self.hired[0].ready = True
        while self.hired[0].said:
            yield self.hired[0], self.hired[0].said.popleft()

    def close(self, workers):
        pass


class Hand:
    def __init__(self):
        self.ready, self.task, self.said = False, None, deque()

    def begin(self, task):
        assert self.ready
        self.said.extend([("ended", (run.name, {"status": "finished"})) for run in task.runs] + [("done", None)])


@pytest.mark.parametrize(("tasks", "hired"), [(1, 1), (2, 2), (5, 3)])
def test_no_task_waits_for_a_worker_that_does_not_come(tasks, hired, small):
    """And no worker is asked for without a task."""
    runs = [small(seed=seed) for seed in range(tasks)]
    staff, events = Half(), []
    Crew(Listed([[run] for run in runs]), Surroundings(), 3, events.append, staff).run()
    assert len(staff.hired) == hired
    assert [e.spec.seed for e in events if e.kind == "ended"] == list(range(tasks))


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadValue, match=r'needs Ray: pip install "sparseflow\[ray\]"'):
        Cluster("local")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--gpus-per-run", "0.5"], "--gpus-per-run is for a cluster; give --ray too"),
        (["--gpus-per-run", "0.5", "--ray", "auto"], "is for runs on a GPU; give --device cuda too"),
        (["--gpus-per-run", "2", "--ray", "auto", "--device", "cuda"], r"must be in (0, 1]"),
        (["--ray", "auto", "--device", "cuda:1"], "Ray says which GPU a worker gets"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sparseflow", "compare", "digits", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert error in capsys.readouterr().err
