"""A Ray cluster does what a pool does: the same results, whatever dies."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from killing import SEARCH, command, kill_at_random, outcome, resumed
from sparseflow.study import Cluster, Event, Listed, Pool, Surroundings
from test_rungs import LONG, Judged

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

LENGTH = {"train": {"epochs": 200}, "measure": {"points": 2}}


class Nodes:
    """A head without room for runs, and nodes of one worker each."""

    def __init__(self, folder: str):
        from ray.cluster_utils import Cluster as Machines

        self._room = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        head = {**self._room, "num_cpus": 0, "_system_config": {"health_check_period_ms": 500}}
        # Ray notes the cluster's address in its usual folder all the same, which nobody may have made.
        (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
        self._machines = Machines(initialize_head=True, head_node_args={**head, "temp_dir": folder})
        self.workers = []

    @property
    def address(self):
        return self._machines.address

    def add(self):
        self.workers.append(self._machines.add_node(num_cpus=1, object_store_memory=80 * 2**20))

    def kill(self):
        """The node's daemon, as when the machine goes."""
        node = self.workers.pop()
        node.all_processes["raylet"][0].process.send_signal(signal.SIGKILL)
        return node

    def end(self):
        self._machines.shutdown()


@pytest.fixture(scope="module")
def nodes():
    folder = tempfile.mkdtemp(prefix="sf")  # short: Ray puts sockets there
    machines = Nodes(folder)
    for _ in range(2):
        machines.add()
    yield machines
    machines.end()
    shutil.rmtree(folder, ignore_errors=True)


def collect(executor, groups, where, on_event=lambda event: None):
    events = []

    def handle(event):
        events.append(event)
        on_event(event)

    executor.run(Listed(groups), where, handle)
    return events


def ended(events):
    times = ("wall_s", "resumed_at")
    found = {e.spec.name: e.payload.as_dict() for e in events if e.kind == "ended"}
    return {name: {k: v for k, v in result.items() if k not in times} for name, result in found.items()}


def rows(events):
    return {(e.spec.name, *row) for e in events if e.kind == "rows" for row in e.payload}


def test_a_cluster_gives_what_a_pool_gives_and_a_dead_worker_costs_nothing(nodes, small, tmp_path):
    stacked = [small(**LENGTH, seed=s) for s in range(3)]
    alone = [small(**LENGTH, seed=s, mask={"execution": "compact"}) for s in range(2)]
    bad = small(data={"name": "/nowhere/at-all.npz"})
    groups = [stacked, *[[run] for run in alone], [bad]]
    expected = collect(Pool(1), groups, Surroundings(checkpoints=tmp_path / "pool", keep=True))
    killed = []

    def kill_once(event: Event):
        if event.kind == "rows" and not killed:
            killed.extend(actors())
            os.kill(killed[0], signal.SIGKILL)

    where = Surroundings(checkpoints=tmp_path / "ray", keep=True, checkpoint_seconds=0.5)
    with Cluster(nodes.address) as cluster:
        assert cluster.jobs == 2
        found = collect(cluster, groups, where, kill_once)
    assert killed
    assert ended(found) == ended(expected)
    assert rows(found) == rows(expected)
    finals = sorted(path.name for path in (tmp_path / "pool").glob("*.final.pt"))
    assert finals == sorted(path.name for path in (tmp_path / "ray").glob("*.final.pt"))


def actors() -> list[int]:
    """Processes on this machine that are workers of a study."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Node"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_rungs_are_asked_and_an_interrupt_leaves_checkpoints(nodes, small, tmp_path):
    specs = [small(**LONG, seed=s) for s in range(2)]
    where = Surroundings(checkpoints=tmp_path)

    def interrupted(run, epoch):
        raise KeyboardInterrupt

    with Cluster(nodes.address, 1) as cluster:
        with pytest.raises(KeyboardInterrupt):
            cluster.run(Judged(specs, interrupted), where, lambda event: None)
        assert where.resume_path(specs[0].name).is_file()
        supply = Judged(specs, lambda run, epoch: epoch < 3 or run.seed == 0)
        cluster.run(supply, where, lambda event: None)
    assert [(seed, epoch) for seed, epoch, _ in supply.heard] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert {seed: (r.status, r.epoch) for seed, r in supply.results.items()} == {0: ("finished", 4), 1: ("halted", 3)}
    assert supply.results[0].resumed_at == 1


def test_a_dead_nodes_runs_go_on_elsewhere_from_their_checkpoints(nodes, small, tmp_path):
    groups = [[small(train={"epochs": 1500}, measure={"points": 0}, seed=s)] for s in range(3)]
    expected = collect(Pool(1), groups, Surroundings())
    killed = []

    def kill_once(event: Event):
        at_work = len(list(tmp_path.glob("*.resume.pt")))
        if event.kind == "rows" and at_work == 2 and not killed:
            killed.append(nodes.kill())

    notes = []
    where = Surroundings(checkpoints=tmp_path, checkpoint_seconds=0.3)
    with Cluster(nodes.address, 2, note=notes.append) as cluster:
        found = collect(cluster, groups, where, kill_once)
    assert killed
    assert ended(found) == ended(expected)
    resumed = [e.payload.resumed_at for e in found if e.kind == "ended"]
    assert max(resumed) > 0, "the dead node's run began anew"
    assert len([e for e in found if e.kind == "started"]) == 4


def test_no_room_is_said(nodes):
    with pytest.raises(ValueError, match=r"0 GPUs, and a worker takes 1 CPU and 0\.5 GPU; add nodes, or give --jobs"):
        Cluster(nodes.address, gpus=0.5)


def test_a_search_killed_three_times_ends_with_the_unbroken_table(tmp_path):
    """Its driver, and before it one of its workers."""
    folder = tempfile.mkdtemp(prefix="sf")
    environment = {**os.environ, "RAY_TMPDIR": folder}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(SEARCH, whole, 2), check=True, capture_output=True)
    words = command(SEARCH, broken, 2, "--ray", "local")
    draw = random.Random(0)
    try:
        killed = [kill_at_random(words, broken, draw, environment) for _ in range(3)]
        assert any(killed), "no worker was there to be killed"
        subprocess.run(words, check=True, capture_output=True, env=environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert outcome(broken) == outcome(whole)
    assert resumed(broken) > 0, "no run went on from a checkpoint"
    assert not list((broken / "checkpoints").iterdir())
