"""A study of arms that compares its networks: what the runs begin with, the numbers, and doing nothing twice."""

from __future__ import annotations

import csv
import json
from itertools import combinations

import numpy as np
import pytest
import torch

from sparseflow.core import BadSpec
from sparseflow.report import write_report
from sparseflow.study import (
    ArmsSpec,
    Planned,
    Pool,
    Store,
    Surroundings,
    arms_of,
    compared,
    drive,
    first_runs,
    paths,
    validate,
)
from ticket_study import SEEDS, Study, content
from watchers import Quiet


@pytest.fixture(scope="module")
def study(small_npz, tmp_path_factory):
    torch.set_num_threads(1)
    made = Study(tmp_path_factory.mktemp("tickets") / "out", small_npz).train()
    assert made.compare()
    return made


def values(net):
    return {name: value.clone() for name, value in net.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_runs_begin_with_what_their_arms_say(study):
    starts, ends = study.nets("start"), study.nets("final")
    first, last = values(starts["pruned@0"]), values(ends["pruned@0"])
    masks = ends["pruned@0"].masks
    for seed in SEEDS:
        ticket, scratch, own, restart = (
            values(starts[f"{arm}@{seed}"]) for arm in ("ticket", "scratch", "own inits", "restart")
        )
        for name, mask in masks.items():
            assert torch.equal(ticket[name], torch.where(mask, first[name], 0.0))
            assert torch.equal(scratch[name], values(starts["scratch@1"])[name])
            assert not torch.equal(scratch[name], ticket[name])
            assert not torch.equal(scratch[name], own[name])
            assert not torch.equal(own[name], values(starts[f"own inits@{SEEDS[seed % 3]}"])[name])
        assert same(restart, last)
        for arm in ("ticket", "scratch", "own inits", "restart"):
            assert same(ends[f"{arm}@{seed}"].masks, masks)
        assert not same(ends[f"pruned@{seed}"].masks, masks)
    for one, other in combinations(ends, 2):  # runs of one start differ in the order of the data
        assert not same(values(ends[one]), values(ends[other]))


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_numbers_are_those_of_the_networks(study):
    _, found = study.found()
    nets = study.nets()
    x, y = (torch.cat(parts) for parts in zip(*nets["pruned@0"].sample("test", 60), strict=True))
    with torch.no_grad():
        p = {label: softmax(net.model.double()(x.double()).numpy()) for label, net in nets.items()}
    said = {label: one.argmax(1) for label, one in p.items()}
    y = y.numpy()
    assert len(found.likeness.members) == 5 * len(SEEDS)
    for member in found.likeness.members:
        assert member.label == f"{member.group}@{member.seed}"
        assert member.accuracy == pytest.approx((said[member.label] == y).mean(), abs=1e-12)
        assert member.disagreement == pytest.approx((said[member.label] != said["pruned@0"]).mean(), abs=1e-12)

    def of(group):
        own = [f"{group}@{seed}" for seed in SEEDS]
        gain = (sum(p[k] for k in own).argmax(1) == y) - np.mean([said[k] == y for k in own], 0)
        return gain, np.mean([said[a] != said[b] for a, b in combinations(own, 2)], 0)

    assert len(found.likeness.contrasts) == 10
    for c in found.likeness.contrasts:
        (gain, apart), (gain2, apart2) = of(c.first), of(c.second)
        root = len(y) ** 0.5
        wanted = [(d.mean(), d.std(ddof=1) / root) for d in (gain - gain2, apart - apart2)]
        assert (c.gain, c.gain_error, c.disagreement, c.disagreement_error) == pytest.approx(sum(wanted, ()), abs=1e-9)


def test_paths_lead_to_the_reference_from_every_start_and_end(study):
    _, found = study.found()
    for ways in (found.train_ways, found.test_ways):
        assert len(ways) == 2 * 5 * len(SEEDS)
        assert len({way.path.losses[-1] for way in ways}) == 1
        for way in ways:
            start, middle, end = way.path.losses
            assert way.path.height == max(0.0, middle - max(start, end))
            assert way.path.barrier == pytest.approx(max(0.0, middle - (start + end) / 2), abs=1e-12)
        by_label = {way.label: way.path.losses for way in ways}
        assert len({by_label[f"scratch@{seed}#start"] for seed in SEEDS}) == 1
        assert len({by_label[f"own inits@{seed}#start"] for seed in SEEDS}) == len(SEEDS)
        assert len(set(by_label[f"restart@{SEEDS[0]}#start"])) == 1  # from the reference to itself
    assert found.train_ways[0].examples == 50


def test_the_report_has_it_without_the_networks(study, tmp_path):
    for path in (study.folder / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    try:
        store = Store(study.folder)
        page = write_report(store, study.folder).read_text()
        store.close()
    finally:
        for path in tmp_path.iterdir():
            path.rename(study.folder / "checkpoints" / path.name)
    for words in ("Likeness with pruned", "Claims about tickets", "Ensembles and disagreement", "Barriers"):
        assert words in page
    _, found = study.found()
    with (study.folder / "likeness-networks.csv").open() as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    distance = {place.label: place.distance for place in found.likeness.places}
    assert len(rows) == 5 * len(SEEDS)
    for label, row in rows.items():
        assert float(row["start_distance"]) == distance[f"{label}#start"]
        assert float(row["final_distance"]) == distance[label]
    with (study.folder / "likeness-paths.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == 2 * 3 * len(found.train_ways)


def test_a_comparison_that_was_cut_goes_on(study, monkeypatch):
    assert not study.compare()  # nothing is left to do
    (path,) = (study.folder / "likeness").glob("found-*.json")
    whole = path.read_text()
    path.unlink()
    assert study.found()[1] is None

    def walked(*_, **__):
        raise AssertionError("a path that is there was walked again")

    monkeypatch.setattr(paths, "interpolate", walked)
    assert study.compare()
    assert json.loads(path.read_text()) == json.loads(whole)
    path.write_text(whole.replace('"digest"', "").replace('"runs": {', '"runs": {"x": 1, '))
    assert study.found()[1] is None  # of other runs


@pytest.mark.slow
def test_networks_are_kept_without_being_asked_for(small_npz, tmp_path):
    """And runs that ended before the comparison was asked for are made again."""
    made = Study(tmp_path / "out", small_npz)
    spec = made.spec.model_copy(update={"seeds": (1,), "likeness": made.spec.likeness.model_copy(
        update={"arms": ("pruned", "ticket")})})  # fmt: skip
    where = Surroundings(checkpoints=tmp_path / "out" / "checkpoints")
    runs = [
        run
        for run in first_runs(spec, made.arms)
        if run.mask.inherited is None or run.mask.inherited.weights == "rewound"
    ]
    entry = (spec.study_name, "arms", {})
    executed = [
        drive(
            Planned(runs, kept=kept), tmp_path / "out", where, Pool(1), Quiet(), study=entry, facts=made.facts
        ).executed
        for kept in ((), compared(spec, made.arms), compared(spec, made.arms))
    ]
    assert executed == [4, 2, 0]  # the reference was kept at once, for its ticket begins with it
    kept = {path.name.split(".")[0] for path in (tmp_path / "out" / "checkpoints").glob("*.final.pt")}
    assert kept == {run.name for run in compared(spec, made.arms)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference": "prund"}, "likeness.reference: unknown arm 'prund'"),
        ({"arms": ["ticket", "tickets"], "claims": None}, "likeness.arms: unknown arm 'tickets'"),
        ({"seed": 7}, "likeness.seed: pruned at seed 7 is no run of this study"),
        ({"arms": []}, "needs at least one arm"),
        ({"arms": ["ticket", "ticket"], "claims": None}, "names 'ticket' twice"),
        ({"arms": ["ticket"]}, "'scratch' is not among the arms that are compared"),
        ({"claims": {"ticket": "ticket", "scratch": ["ticket"]}}, "an arm plays two parts"),
        ({"points": 2}, "likeness.points"),
        ({"references": "pruned"}, "likeness.references"),
    ],
)
def test_mistakes_are_said_before_anything_runs(small_npz, change, words):
    with pytest.raises(BadSpec) as error:
        arms_of(validate(ArmsSpec, content(small_npz, **change)))
    assert words in str(error.value)


def test_a_reference_with_a_grid_is_refused(small_npz):
    made = content(small_npz, reference="dense")
    made["arms"]["dense"] = {"grid": {"optimizer.lr": [0.1, 0.2]}, "data": {"val_fraction": 0.1}}
    with pytest.raises(BadSpec, match="dense has a grid"):
        arms_of(validate(ArmsSpec, made))
