"""Whole searches: what is tried, what stops, what is trained again; cut anywhere, they end as they would have."""

from __future__ import annotations

from itertools import count

import pytest

from sparseflow.core import BadSpec
from sparseflow.report import write_report
from sparseflow.search import Found, Search, SearchSpec, quests, stored
from sparseflow.study import DataCache, FactsBook, Interrupted, Store, Surroundings, drive, facts_of, validate
from watchers import InProcess, Quiet

BASE = {
    "model": {"depth": 2, "width": 12},
    "optimizer": {"lr": 0.05},
    "train": {"epochs": 4, "batch_size": 32, "eval_every": 0},
    "measure": {"points": 0, "gradient_flow": False},
}
HALVING = {"form": "stopping"}


@pytest.fixture
def spec_of(small_npz):
    def make(**fields) -> SearchSpec:
        base = {**BASE, "data": {"name": str(small_npz), "val_fraction": 0.25}, **fields.pop("base", {})}
        return validate(SearchSpec, {"base": base, "samples": 6, "seeds": 2, **fields})

    return make


def carry_out(spec, out, watcher=None, executor=None):
    cache = DataCache(Surroundings())
    every = quests(spec, lambda run: facts_of(run, cache))
    programme = Search(every)
    book = FactsBook.of([*(quest.spec.plain() for quest in every), *programme.expected()], cache)
    content = {"spec": spec.changes(), "facts": book.dump(), "spaces": [quest.dump() for quest in every]}
    where = Surroundings(checkpoints=out / "checkpoints")
    study = (spec.study_name, "search", content)
    return drive(programme, out, where, executor or InProcess(), watcher or Quiet(), study=study, facts=book)


def outcome(out):
    """(what every search found, run -> how it ended)."""
    store = Store(out)
    try:
        ((_, _, content),) = store.studies()
        results = store.results()
        found = [Found.of(quest, store, results) for quest in stored(content)]
        later = [one.quest.finals(one.trials) for one in found]
    finally:
        store.close()
    ended = {name: (r["status"], r["epoch"], r["final"], r["digest"]) for name, r in results.items()}
    return found, ended, later


def test_a_search_tries_its_vectors_and_trains_the_winner_on_other_seeds(spec_of, tmp_path):
    spec = spec_of(rivals={"SNIP": {"mask": {"criterion": "snip"}}, "ticket": {"mask": {"lottery": {}}}})
    tally = carry_out(spec, tmp_path)
    (found,), ended, (study,) = outcome(tmp_path)
    assert [t.number for t in found.trials] == list(range(6))
    assert all(t.status == "finished" and t.epoch == 4 for t in found.trials)
    assert found.winner.score == max(t.score for t in found.trials)
    assert sorted(t.score for t in found.trials)[2] == found.median.score
    assert {run.seed for run in (found.quest.run(t.vector) for t in found.trials)} == {1000}
    assert study.base["data"]["val_fraction"] == 0.0, "no choice is left: the validation split is trained on"
    assert list(study.arms) == ["dense", "winner", "median", "SNIP", "ticket"]
    assert study.arms["winner"].changes["mask"]["densities"] == list(found.winner.vector)
    assert tally.total == len(ended) == tally.executed
    again = carry_out(spec, tmp_path)
    assert again.executed == 0


def test_rivals_have_the_winners_active_weights(spec_of, tmp_path):
    carry_out(spec_of(rivals={"SNIP": {"mask": {"criterion": "snip"}}}, seeds=1), tmp_path)
    (found,), _, _ = outcome(tmp_path)
    store = Store(tmp_path)
    results = store.results()
    store.close()
    active = sorted(sum(r["active"].values()) for r in results.values() if "val_accuracy" not in r["final"])
    assert active.count(found.winner.active) == 2  # the winner and SNIP, of the runs after the search


@pytest.mark.parametrize(
    "sampler", ["random", pytest.param({"name": "bayes", "initial": 3}, marks=pytest.mark.slow, id="bayes")]
)
@pytest.mark.parametrize("form", [None, "stopping", "promoting"])
def test_a_search_cut_anywhere_ends_as_the_unbroken_one(sampler, form, spec_of, tmp_path):
    spec = spec_of(sampler=sampler, **({"halving": {"form": form}} if form else {}))
    carry_out(spec, tmp_path / "whole")
    moments, cuts = count(), (1, 4, 9, 15, 23, 30)

    class Impatient(Quiet):
        def event(self, event):
            if next(moments) in cuts:
                raise KeyboardInterrupt

    for _ in cuts:
        with pytest.raises(Interrupted):
            carry_out(spec, tmp_path / "broken", Impatient())
    carry_out(spec, tmp_path / "broken")
    (whole,), ended, _ = outcome(tmp_path / "whole")
    (broken,), ended_too, _ = outcome(tmp_path / "broken")
    assert broken.trials == whole.trials
    assert broken.verdicts == whole.verdicts
    assert ended_too == ended


def test_halving_stops_runs_and_promoting_lets_them_go_on(spec_of, tmp_path):
    first = {}
    for form in ("stopping", "promoting"):
        carry_out(spec_of(halving={"form": form}, samples=12), tmp_path / form)
        (found,), _, _ = outcome(tmp_path / form)
        first[form] = found
        epochs = sorted(t.epoch for t in found.trials)
        assert epochs[0] == 1
        assert epochs[-1] == 4
        assert {t.status for t in found.trials} == {"finished", "halted"}
        assert found.winner.epoch == 4
        for trial in found.trials:  # a run stands where its last verdict left it
            verdicts = [v for v in found.verdicts if v.run == trial.run]
            assert trial.whole == verdicts[-1].goes_on
            assert trial.epoch == (4 if trial.whole else 2 ** verdicts[-1].rung)
    assert [t.vector for t in first["stopping"].trials] == [t.vector for t in first["promoting"].trials]
    # Promoted: of n at a rung exactly n // 2 went on in the end.
    at_first = {v.run: v.goes_on for v in first["promoting"].verdicts if v.rung == 0}
    assert sum(at_first.values()) == 6
    stopped = [t.run for t in first["stopping"].trials if t.status == "halted"]
    left = {path.name.partition(".")[0] for path in (tmp_path / "stopping" / "checkpoints").glob("*.resume.pt")}
    assert not left & set(stopped), "what has stopped for good needs no checkpoint"


def test_more_samples_go_on_with_the_same_search(spec_of, tmp_path):
    carry_out(spec_of(samples=3, seeds=1), tmp_path / "a")
    carry_out(spec_of(samples=6, seeds=1), tmp_path / "a")
    carry_out(spec_of(samples=6, seeds=1), tmp_path / "b")
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    name = spec_of().study_name
    assert store.trials(name) == other.trials(name)
    assert len(store.trials(name)) == 6
    store.close()
    other.close()


KNOBS = {
    "uniform": {"uniform": True},
    "low": {"low": 0.5},
    "high": {"high": 0.5},
    "max_density": {"max_density": 0.3},
    "seed": {"seed": 1},
    "sampler": {"sampler": {"name": "bayes", "initial": 2}},
    "initial": {"sampler": {"name": "bayes", "initial": 4}},
    "objective": {"sampler": {"name": "bayes", "initial": 2}, "objective": "pareto"},
    "transfer": {"transfer": {"vector": (0.5, 0.25, 0.125)}},
}


@pytest.mark.slow
def test_every_knob_changes_what_is_tried(spec_of, tmp_path):
    seen = {}
    for knob, fields in {"nothing": {}, **KNOBS}.items():
        spec = spec_of(seeds=1, **fields)
        carry_out(spec, tmp_path / knob)
        (found,), _, _ = outcome(tmp_path / knob)
        seen[knob] = tuple(t.vector for t in found.trials)
    same = [(a, b) for a in seen for b in seen if a < b and seen[a] == seen[b]]
    assert not same
    assert seen["transfer"][0] == (0.5, 0.25, 0.125)
    assert all(len(v) == 1 for v in seen["uniform"])


def test_the_score_is_of_the_split_that_is_asked_for(spec_of, tmp_path):
    carry_out(spec_of(score="test", seeds=1), tmp_path)
    (found,), ended, _ = outcome(tmp_path)
    assert [t.score for t in found.trials] == [ended[t.run][2]["test_accuracy"] for t in found.trials]


@pytest.mark.slow
def test_searches_of_several_seeds_are_one_study(spec_of, tmp_path):
    spec = spec_of(cross={"seed": [0, 1], "base.model.depth": [1, 2]}, samples=2, seeds=1)
    carry_out(spec, tmp_path)
    found, _, later = outcome(tmp_path)
    assert [one.quest.label for one in found] == [
        "seed 0, depth 1", "seed 0, depth 2", "seed 1, depth 1", "seed 1, depth 2"]  # fmt: skip
    assert len({t.vector for one in found for t in one.trials}) == 8
    assert all(study is not None for study in later)
    store = Store(tmp_path)
    write_report(store, tmp_path)
    store.close()
    page = (tmp_path / "report.html").read_text()
    assert all(
        words in page for words in ("Over the seeds of the searches", "By depth", "001 Table B.1", "seed 1, depth 2")
    )
    for name in ("runs.csv", "trials.csv", "figures/search-depth.csv", "figures/search-front.csv"):
        assert len((tmp_path / name).read_text().splitlines()) > 4, name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sampler": "clever"}, "sampler.*clever.*random"),
        ({"sampler": {"name": "random", "kappa": 1.0}}, "random.*has no option 'kappa'"),
        ({"halving": {"form": "harsh"}}, "harsh.*stopping"),
        ({"halving": {"first": 4}}, "first rung, after 4 epochs, is not within the training's 4"),
        ({"halving": {}, "objective": "pareto"}, "pareto goes without"),
        ({"rivals": {"winner": {}}}, "rivals.winner: a search has an arm of that name"),
        ({"rivals": {"a": {"grid": {"optimizer.lr": [0.1, 0.2]}}}}, "rivals.a.grid: a rival has one setting"),
        ({"base": {"mask": {"density": 0.1}}}, "base.mask.density: the search sets the masks"),
        ({"seeds": [1000]}, "1000 is the seed of the search's own runs"),
        ({"base": {"seed": 3}}, "base.seed: leave it out"),
        ({"base": {"data": {"name": "digits"}}}, "a search needs a validation split"),
        ({"base": {"model": {"name": "mpl"}}}, "base.model.*mpl"),
        ({"max_density": 0.0005}, "max_density 0.0005 allows"),
        ({"cross": {"seed": [0], "other": {"x": {"seed": 1}}}}, "cross: two axes set seed"),
        ({"cross": {"samples": [3, 4]}}, "samples 3 and samples 4 are the same search"),
        ({"transfer": {"vector": (0.5, 0.5)}}, "transfer.vector: has 2 densities, this space 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_before_the_first_run(fields, words, spec_of, tmp_path):
    with pytest.raises(BadSpec, match=words):
        carry_out(spec_of(**fields), tmp_path)
    assert not (tmp_path / "results.db").exists()
