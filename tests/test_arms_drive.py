"""Named arms carried out: the choice comes between two phases, and an interrupt anywhere changes nothing."""

from __future__ import annotations

from itertools import count

import pytest

from sparseflow.study import (
    ArmsSpec,
    DataCache,
    Event,
    FactsBook,
    Interrupted,
    Planned,
    RunResult,
    Store,
    Surroundings,
    arms_of,
    choose,
    drive,
    first_runs,
    validate,
    winners,
)
from watchers import InProcess, Quiet

TUNED = {
    "base": {"model": {"depth": 1, "width": 8}, "train": {"epochs": 2}, "measure": {"points": 2}, "data": {}},
    "versus": "dense",
    "seeds": 2,
    "grid_seeds": 2,
    "arms": {
        "dense": {},
        "tuned": {"grid": {"optimizer.lr": [0.001, 0.1]}},
        "r": {"cross": {"mask.density": [0.5, 0.25], "model.norm": ["none", "batch"]}},
    },
}


@pytest.fixture
def small_study(small_npz):
    content = {**TUNED, "base": {**TUNED["base"], "data": {"name": str(small_npz), "val_fraction": 0.2}}}
    return validate(ArmsSpec, content)


def carry_out(spec, out, watcher=None, executor=None):
    arms = arms_of(spec)
    surroundings = Surroundings(checkpoints=out / "checkpoints")
    book = FactsBook.of((point.spec for arm in arms for point in arm.points), DataCache(surroundings))
    study = (spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    programme = Planned(first_runs(spec, arms), winners(spec, arms, book))
    return drive(programme, out, surroundings, executor or InProcess(), watcher or Quiet(), study=study, facts=book)


def outcomes(out):
    """Run -> what it ended with, and the point that was chosen."""
    store = Store(out)
    results = store.results()
    ((_, _, content),) = store.studies()
    store.close()
    spec, book = validate(ArmsSpec, content["spec"]), FactsBook.load(content["facts"])
    (tuned,) = (arm for arm in arms_of(spec) if arm.chosen)
    ended = {name: (r["status"], r["final"], r["digest"]) for name, r in results.items()}
    return ended, choose(spec, tuned, results, book)


def test_the_winner_is_run_on_seeds_that_the_choice_has_not_seen(small_study, tmp_path):
    watcher = Quiet()
    tally = carry_out(small_study, tmp_path, watcher)
    assert (tally.total, tally.executed, watcher.total, watcher.done) == (16, 16, 16, 0)
    ended, choice = outcomes(tmp_path)
    assert max(choice.points, key=lambda point: point.mean).point == choice.winner
    plain = [arm for arm in arms_of(small_study) if not arm.chosen]
    assert ended.keys() == {
        *(point.at(seed).name for point in choice.arm.points for seed in (1000, 1001)),
        *(choice.winner.at(seed).name for seed in (0, 1)),
        *(arm.points[0].at(seed).name for arm in plain for seed in (0, 1)),
    }
    assert all(status == "finished" for status, _, _ in ended.values())
    again = Quiet()
    assert carry_out(small_study, tmp_path, again).executed == 0
    assert (again.total, again.done) == (16, 16)


@pytest.mark.parametrize("after", [1, 5, 14, 15], ids=lambda n: f"after {n} of 16 runs")
def test_interrupted_equals_unbroken(after, small_study, tmp_path):
    """14 runs wait for nothing, 2 for the choice."""

    class Impatient(Quiet):
        ended = count(1)

        def event(self, event):
            if event.kind == "ended" and next(self.ended) == after:
                raise KeyboardInterrupt

    carry_out(small_study, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped with {16 - after} of 16 runs to go"):
        carry_out(small_study, tmp_path / "broken", Impatient())
    assert carry_out(small_study, tmp_path / "broken").executed == 16 - after
    assert outcomes(tmp_path / "broken") == outcomes(tmp_path / "whole")


def test_a_failed_run_leaves_the_choice_open_and_the_next_call_makes_it(small_study, tmp_path):
    def spoil(event):
        if event.spec.seed == 1001 and event.spec.optimizer.lr == 0.1:
            return Event("ended", event.spec, RunResult("failed", error="no luck"))
        return event

    tally = carry_out(small_study, tmp_path, executor=InProcess(spoil))
    assert (tally.total, tally.executed, list(tally.failed.values())) == (16, 14, ["no luck"])
    assert outcomes(tmp_path)[1].winner is None
    assert carry_out(small_study, tmp_path).executed == 1 + 2
    assert all(status == "finished" for status, _, _ in outcomes(tmp_path)[0].values())


def test_arms_may_train_on_different_data(small_npz, tmp_path):
    base = {"model": {"depth": 1, "width": 8}, "train": {"epochs": 1}, "measure": {"points": 0}}
    arms = {"small": {"data": {"name": str(small_npz)}}, "digits": {"data": {"train_limit": 60}}}
    spec = validate(ArmsSpec, {"base": base, "arms": arms, "seeds": 1})
    carry_out(spec, tmp_path)
    store = Store(tmp_path)
    results = store.results()
    ((_, _, content),) = store.studies()
    store.close()
    book = FactsBook.load(content["facts"])
    runs = [arm.points[0].at(0) for arm in arms_of(spec)]
    assert [(book(run).classes, book(run).train_size) for run in runs] == [(4, 160), (10, 60)]
    assert [results[run.name]["data_digest"] for run in runs] == [book(run).digest for run in runs]
    assert book(runs[0]).digest != book(runs[1]).digest
    assert carry_out(spec, tmp_path).executed == 0
