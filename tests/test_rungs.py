"""A run asks at its rungs whether it goes on; what it is told changes how far it goes, never what it computes."""

from __future__ import annotations

from collections import deque

import pytest

from sparseflow.study import Event, Pool, Rungs, RunSpec, Surroundings, Task, execute, execute_group

LONG = {"train": {"epochs": 4, "eval_every": 0}, "measure": {"points": 0}, "data": {"val_fraction": 0.2}}


@pytest.fixture(params=[True, False], ids=["stacked", "alone"])
def stacked(request) -> bool:
    return request.param


@pytest.fixture
def run(stacked, small) -> RunSpec:
    return small(**LONG, **({} if stacked else {"mask": {"execution": "compact"}}))


def test_a_run_that_may_always_go_on_is_the_run_without_rungs(run, stacked, cache):
    asked = []

    def yes(spec, epoch, measured):
        asked.append((spec, epoch, measured["val_accuracy"]))
        return True

    plain, result = execute(run, Surroundings(), cache), execute(run, Surroundings(), cache, rungs=Rungs((1, 3), yes))
    assert result.stacked == stacked
    assert result.digest == plain.digest
    last = [name for name in plain.final if not name.startswith("best_")]  # of more evaluations, the best differs
    assert [result.final[name] for name in last] == [plain.final[name] for name in last]
    assert [(spec, epoch) for spec, epoch, _ in asked] == [(run, 1), (run, 3)]
    assert asked[0][2] != asked[1][2], "the score of a rung must be measured there"


@pytest.mark.parametrize("verdict", [False, None])
def test_a_run_that_is_held_leaves_a_checkpoint_asks_again_and_goes_on(verdict, run, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path, checkpoint_seconds=1e9, keep=True)
    answers = deque([True, verdict, verdict, True, True])
    asked = []

    def say(spec, epoch, measured):
        asked.append((epoch, measured["val_accuracy"]))
        return answers.popleft()

    rungs = Rungs((1, 2, 3), say)
    status = "halted" if verdict is False else "stopped"
    for _ in range(2):
        held = execute(run, where, cache, rungs=rungs)
        assert (held.status, held.epoch) == (status, 2)
        assert where.resume_path(run.name).is_file()
        assert not where.final_path(run.name).exists()
    ended = execute(run, where, cache, rungs=rungs)
    assert [epoch for epoch, _ in asked] == [1, 2, 2, 2, 3]
    assert asked[1] == asked[2] == asked[3]
    assert (ended.status, ended.resumed_at) == ("finished", 2)
    assert ended.digest == execute(run, Surroundings(), cache).digest


def test_members_of_a_group_are_held_one_by_one(small, cache, tmp_path):
    specs = [small(**LONG, seed=s) for s in range(3)]
    where = Surroundings(checkpoints=tmp_path)
    rungs = Rungs((1, 2), lambda spec, epoch, measured: epoch + spec.seed < 3)
    found = {run.seed: result for run, result in execute_group(specs, where, cache, rungs=rungs)}
    assert {seed: (r.status, r.epoch, r.stacked) for seed, r in found.items()} == {
        0: ("finished", 4, True),
        1: ("halted", 2, True),
        2: ("halted", 1, True),
    }
    free = execute_group(specs, where, cache)
    whole = {run.seed: result.digest for run, result in execute_group(specs, Surroundings(), cache)}
    assert {run.seed: result.digest for run, result in free} == whole


class Judged:
    """One run at a time, with a verdict for each rung."""

    def __init__(self, runs, verdicts):
        self._runs, self.verdicts = list(runs), verdicts
        self.heard, self.results = [], {}

    def take(self, in_hand):
        return None if in_hand or not self._runs else Task((self._runs.pop(0),), (1, 3))

    @property
    def spent(self):
        return not self._runs

    def goes_on(self, run, epoch, measured):
        self.heard.append((run.seed, epoch, measured["val_accuracy"]))
        return self.verdicts(run, epoch)

    def ended(self, run, result):
        self.results[run.seed] = result


def test_a_pool_asks_its_supply_and_waits_for_the_answer(small, cache, tmp_path):
    specs = [small(**LONG, seed=s) for s in range(2)]
    supply = Judged(specs, lambda run, epoch: epoch < 3 or run.seed == 0)
    events: list[Event] = []
    Pool(2).run(supply, Surroundings(checkpoints=tmp_path), events.append)
    assert [(seed, epoch) for seed, epoch, _ in supply.heard] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert {seed: (r.status, r.epoch) for seed, r in supply.results.items()} == {0: ("finished", 4), 1: ("halted", 3)}
    assert [e.kind for e in events if e.kind != "rows"] == ["started", "ended"] * 2
    # What a rung is judged by is in the store before the verdict falls.
    recorded = {
        value for e in events if e.kind == "rows" for _, _, name, _, value in e.payload if name == "val_accuracy"
    }
    assert {score for _, _, score in supply.heard} <= recorded


def test_a_pool_that_is_interrupted_at_a_rung_asks_there_again(small, tmp_path):
    spec = small(**LONG)

    def interrupted(run, epoch):
        raise KeyboardInterrupt

    where = Surroundings(checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Pool(1).run(Judged([spec], interrupted), where, lambda event: None)
    again = Judged([spec], lambda run, epoch: True)
    Pool(1).run(again, where, lambda event: None)
    assert [epoch for _, epoch, _ in again.heard] == [1, 3]
    assert again.results[0].resumed_at == 1
