"""Analyses of the networks of an item's studies, among them those that a training comes by."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from small_sources import source_of, trained
from torch.nn import functional as F

from finished_runs import base
from sparseflow.report import HESSIAN_HEADER
from sparseflow.reproduce.analyses import again, analyses
from sparseflow.reproduce.analyses.again import Wanted, load, on_the_way, step_after
from sparseflow.reproduce.analyses.landscapes import look_of
from sparseflow.reproduce.analyses.networks import finished_runs
from sparseflow.reproduce.experiment import experiment
from sparseflow.reproduce.scale import LADDER
from sparseflow.study import Curvature, DataCache, PartFile, Surroundings, curved, reload

WHERE = Surroundings()
CALLS = {
    "calls": {"own": {"Method": "Scratch"}, "wired": {"axes": {"method": "Method"}}},
    "relabel": {"Method": {"set": "SET", "rigl": "RigL"}},
}


@pytest.fixture(scope="module")
def wired(small_npz, tmp_path_factory):
    """Two rules on the masks of a pruned network, and one training on its masks alone; 3 epochs of 5 steps."""
    torch.set_num_threads(1)
    rules = {
        name: {"rewire": {"rule": name, "every": 3, "stop": 1.0, "gradient_norms": True}} for name in ("set", "rigl")
    }
    content = {
        "base": {**base(small_npz), "measure": {"points": 2, "eigenvalues": 1}},
        "seeds": 1,
        "arms": {
            "pruned": {"mask": {"density": 0.3, "gradual": {"start": 2, "end": 8, "every": 2}}},
            "own": {"mask": {"inherited": {"run": "pruned"}}},
            "wired": {"mask": {"inherited": {"run": "pruned"}}, "cross": {"method": rules}},
        },
    }
    folder = tmp_path_factory.mktemp("wired") / "out"
    return trained(content, folder), folder


def test_networks_are_those_of_the_paper_s_arms(wired):
    with source_of(*wired, **CALLS) as source:
        assert [(one.arm, one.name) for one in finished_runs([source])] == [
            ("own", "Scratch"), ("wired set", "SET"), ("wired rigl", "RigL"),
        ]  # fmt: skip


def test_runs_know_what_their_updates_and_their_curvature_were(wired):
    with source_of(*wired, **CALLS) as source:
        rigl = next(run for run in source.observed if run.labels["Method"] == "RigL")
        run = next(r.members[0].run for r in source.arms if r.arm.name == "wired rigl")
        metrics = ["gradient_norm_before", "gradient_norm_after", "top_eigenvalue_1", "bottom_eigenvalue_1"]
        before, after, top, bottom = (
            [value for _, value in source.study.store.series([metric])[run][metric]] for metric in metrics
        )
    assert len(before) == len(after) > 1
    assert rigl.values["norm_change"] == pytest.approx(np.mean(after) - np.mean(before))
    assert rigl.values["eigenvalue"] == pytest.approx(np.mean(top))
    assert rigl.values["negative eigenvalue"] == pytest.approx(-np.mean(bottom))
    plain = next(run for run in source.observed if run.labels["Method"] == "Scratch")
    assert "norm_change" not in plain.values


def values(net):
    return {name: value.clone() for name, value in net.model.state_dict().items()}


@pytest.mark.parametrize("arm", ["own", "wired rigl"])
def test_a_training_again_is_the_training(wired, tmp_path, arm):
    """Bit for bit: its last network is the one that was kept, masks and weights."""
    cache = DataCache(WHERE)
    with source_of(*wired, **CALLS) as source:
        run = next(one.run for one in finished_runs([source]) if one.arm == arm)
        kept = on_the_way(run, Wanted(parts=[0.2, 0.999]), cache, WHERE, tmp_path)
        assert [(one.step, one.moment) for one in kept] == [(3, ""), (15, "")]
        last, end = load(run, kept[1], "again", cache, "cpu"), reload(run, cache)
        assert values(last).keys() == values(end).keys()
        for name, value in values(end).items():
            assert torch.equal(value, values(last)[name]), name
        assert last.masks.keys() == end.masks.keys()
        for name, mask in end.masks.items():
            assert torch.equal(mask, last.masks[name]), name
        early = load(run, kept[0], "early", cache, "cpu")
        assert not all(torch.equal(value, values(end)[name]) for name, value in values(early).items())


def test_networks_around_an_update(wired, tmp_path, monkeypatch):
    cache = DataCache(WHERE)
    with source_of(*wired, **CALLS) as source:
        run = next(one.run for one in finished_runs([source]) if one.arm == "wired rigl")
        wanted = Wanted(updates=[0.1, 0.15, 0.5])
        kept = on_the_way(run, wanted, cache, WHERE, tmp_path)
        # Updates come every 3 steps of 15: the first at or after steps 1.5 and 2.25 is that of step 3.
        assert [(one.step, one.moment) for one in kept] == [
            (3, "before"), (3, "after"), (9, "before"), (9, "after"),
        ]  # fmt: skip
        nets = [load(run, one, "one", cache, "cpu") for one in kept]
        changed = 0
        for before, after in (nets[:2], nets[2:]):
            for name, mask in before.masks.items():
                assert mask.sum() == after.masks[name].sum()
                changed += int((mask != after.masks[name]).sum())
                weight = after.model.get_parameter(name)
                grown = after.masks[name] & ~mask
                assert not weight[grown].any()  # what is grown starts at 0
                assert not weight[~after.masks[name]].any()
        assert changed
        monkeypatch.setattr(again.Trainer, "run", lambda self: pytest.fail("trained again"))
        assert on_the_way(run, wanted, cache, WHERE, tmp_path) == kept


def test_the_training_ends_when_all_is_kept(wired, tmp_path, monkeypatch):
    ended = []
    outcome = again.Trainer.outcome
    monkeypatch.setattr(again.Trainer, "outcome", lambda self, status: ended.append(self.step) or outcome(self, status))
    with source_of(*wired, **CALLS) as source:
        run = next(one.run for one in finished_runs([source]) if one.arm == "wired set")
        on_the_way(run, Wanted(updates=[0.1]), DataCache(WHERE), WHERE, tmp_path)
    assert ended == [5]  # with the first epoch


@pytest.mark.slow
def test_spectra_around_updates(wired, tmp_path):
    options = {"arm": "wired rigl", "at": [0.1, 0.5], "examples": 40, "probes": 2, "steps": 8}
    steps = []
    with source_of(*wired, **CALLS) as source:
        call = [[source], options, LADDER[0], tmp_path, WHERE, lambda done, of: steps.append((done, of))]
        first, second, table = analyses["updates"](*call)
        assert [first.title, second.title] == ["RigL: the update at step 3", "RigL: the update at step 9"]
        assert first.name != second.name
        assert [row[0] for row in table.rows] == ["before step 3", "after step 3", "before step 9", "after step 9"]
        assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
        cache = DataCache(WHERE)
        run = next(one.run for one in finished_runs([source]) if one.arm == "wired rigl")
        kept = on_the_way(run, Wanted(updates=[0.1, 0.5]), cache, WHERE, tmp_path)
        net = load(run, kept[1], "after", cache, "cpu")
        (tmp_path / "other").mkdir()
        parts = PartFile(tmp_path / "other")
        one = curved(net, net.sample("train", 40), Curvature(probes=0, top=1, bottom=1), parts, {})
        parts.close()
        assert table.rows[1][HESSIAN_HEADER.index("largest eigenvalue")].startswith(f"{one.top[0].value:.4g} ")


@pytest.mark.slow
def test_spectra_along_trainings(wired, tmp_path):
    options = {"arms": ["own", "wired set"], "at": [0, 0.4, 1], "examples": 40, "probes": 2, "steps": 8}
    with source_of(*wired, **CALLS) as source:
        *figures, table = analyses["spectra"]([source], options, LADDER[0], tmp_path, WHERE, lambda done, of: None)
    words = ["at the start", "after 40 % of the training", "at the end"]
    assert [figure.title.partition("eigenvalues ")[2] for figure in figures] == words
    assert len({figure.name for figure in figures}) == 3
    assert [row[0] for row in table.rows] == [f"{name}, {at}" for at in words for name in ("Scratch", "SET")]
    assert len({row[1:][2] for row in table.rows}) > 3  # six networks


def test_nothing_has_ended_yet(wired, tmp_path):
    with source_of(*wired, calls={}) as source:
        for name, options in (
            ("updates", {"arm": "wired set", "at": [0.1], "examples": 40}),
            ("spectra", {"arms": ["own"], "at": [0], "examples": 40}),
            ("landscape", experiment("003.fig8").options),
        ):
            (block,) = analyses[name]([source], options, LADDER[-1], tmp_path, WHERE, lambda done, of: None)
            assert block.words == "No run has ended yet."


def test_the_loss_along_the_top_eigenvector(wired, tmp_path):
    options = {**experiment("003.fig8").options, "points": 5, "examples": 60, "hessian_examples": 80}
    steps = []
    with source_of(*wired, **CALLS) as source:
        call = [[source], options, LADDER[0], tmp_path, WHERE, lambda done, of: steps.append((done, of))]
        figure, table = analyses["landscape"](*call)
        assert steps[-1] == (15, 15)
        assert [row[0] for row in table.rows] == ["Scratch", "SET", "RigL"]
        with (tmp_path / "figures" / f"{figure.name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        cache = DataCache(WHERE)
        for named in finished_runs([source]):
            net = reload(named.run, cache)
            x, y = (torch.cat(part) for part in zip(*net.sample("test", 60), strict=True))
            with torch.no_grad():
                loss = float(F.cross_entropy(net.model(x), y))
            own = [row for row in rows if row["network"] == named.name]
            assert [float(row["distance"]) for row in own] == [-1, -0.5, 0, 0.5, 1]
            assert float(own[2]["loss_at_0"]) == pytest.approx(loss, rel=1e-5)
            assert float(own[2]["change"]) == 0
            assert np.ptp([float(row["change"]) for row in own]) > 0


@pytest.mark.slow
def test_the_loss_around_test_images(wired, tmp_path):
    options = {**experiment("003.fig10").options, "points": 3, "examples": 20}
    with source_of(*wired, **CALLS) as source:
        figure, table = analyses["landscape"]([source], options, LADDER[0], tmp_path, WHERE, lambda done, of: None)
    assert len(table.rows) == 3
    with (tmp_path / "figures" / f"{figure.name}.csv").open() as file:
        assert sum(1 for _ in file) == 1 + 3 * 9


def test_scales_bound_what_is_looked_at():
    options = experiment("003.fig8").options
    full, small = look_of(options, LADDER[0]), look_of(options, LADDER[-1])
    assert (len(full.distances), full.examples, full.hessian_examples) == (21, 10_000, 1000)
    assert (len(small.distances), small.examples, small.hessian_examples) == (5, 128, 128)
    assert 0.0 in small.distances
    assert (small.distances[0], small.distances[-1]) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="view is eigenvector, input, got 'above'"):
        look_of({**options, "view": "above"}, LADDER[0])


def test_steps_of_parts():
    assert [step_after(part, 10) for part in (0.001, 0.26, 0.5, 1.0)] == [1, 3, 5, 10]
