"""Readers of tables of arms, on small studies that were really trained."""

from __future__ import annotations

from itertools import combinations, permutations
from math import isnan

import numpy as np
import pytest
import torch
from small_sources import source_of, trained

from finished_runs import base
from sparseflow.measure import activation_zeros
from sparseflow.report import Study as ReportStudy
from sparseflow.reproduce.experiment import Experiment, Part, experiment
from sparseflow.reproduce.items import items
from sparseflow.reproduce.readers import readers
from sparseflow.reproduce.source import Source
from sparseflow.study import ArmsSpec, CompareSpec, DataCache, Finished, Surroundings, arms_of, reload, validate
from ticket_study import SEEDS, Study


@pytest.fixture(scope="module")
def tweaked(small_npz, tmp_path_factory):
    torch.set_num_threads(1)
    training = {"plain": {}, "LS": {"tost": {"smoothing": 0.3}}}
    content = {
        "base": base(small_npz) | {"optimizer": {"lr": 0.02}, "train": {"epochs": 2, "batch_size": 32}},
        "seeds": 3,
        "arms": {
            "dense": {"cross": {"training": training}},
            "sparse": {"cross": {"training": training, "mask.density": [0.2, 0.1]}},
        },
    }
    folder = tmp_path_factory.mktemp("gain") / "out"
    return trained(content, folder), folder


TWEAKS = {
    "calls": {
        "dense": {"Sparsity": "Dense NN (0%)", "axes": {"training": "Tweak"}},
        "sparse": {"axes": {"training": "Tweak", "mask.density": "Sparsity"}},
    },
    "relabel": {"Sparsity": {"0.2": "80%", "0.1": "90%"}},
    "options": {"axis": "Tweak", "without": "plain"},
}


def test_a_gain_is_the_mean_of_differences_of_one_seed(tweaked):
    spec, folder = tweaked
    read = readers["gain"]
    with source_of(spec, folder, **TWEAKS) as source:
        results = source.results
        accuracy = {
            (arm.name, seed): 100 * results[arm.points[0].at(seed).name]["final"]["test_accuracy"]
            for arm in arms_of(spec)
            for seed in range(3)
        }
        places = {"Dense NN (0%)": "dense {}", "80%": "sparse {} 0.2", "90%": "sparse {} 0.1"}
        differing = 0
        for sparsity, name in places.items():
            wanted = [accuracy[name.format("LS"), k] - accuracy[name.format("plain"), k] for k in range(3)]
            found = read([source], {"Tweak": "LS", "Sparsity": sparsity})
            assert list(found.against) == pytest.approx(wanted)
            assert found.value == pytest.approx(np.mean(wanted))
            assert found.spread == pytest.approx(np.std(wanted, ddof=1))
            assert found.n == 3
            differing += any(wanted)
        assert differing
        assert read([source], {"Tweak": "GSk", "Sparsity": "80%"}) is None
    assert read([], {"Tweak": "LS", "Sparsity": "80%"}) is None


@pytest.fixture(scope="module")
def activated(small_npz, tmp_path_factory):
    torch.set_num_threads(1)
    content = {
        "base": base(small_npz) | {"model": {"name": "resnet", "depth": 8, "width": 4},
                                   "measure": {"points": 2, "probe_size": 40}},
        "seeds": 2,
        "arms": {"LTH": {"mask": {"density": 0.5}, "measure": {"activations": True},
                         "cross": {"activation": {"relu": {"model": {"activation": "relu"}},
                                                  "mish": {"model": {"activation": "mish"}}}}}},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("zeros") / "out"
    return trained(content, folder), folder


def test_zeros_of_a_stage_are_those_of_its_finished_networks(activated):
    spec, folder = activated
    fields = {
        "calls": {"LTH": {"axes": {"activation": "Activation"}}},
        "relabel": {"Activation": {"relu": "ReLU", "mish": "Mish"}},
        "options": {"stages": {"Layer 1": ["blocks.0"], "Layer 2": ["blocks.1", "blocks.2"], "Layer 3": ["output"]}},
    }
    cache = DataCache(Surroundings())
    with source_of(spec, folder, **fields) as source:
        arm = arms_of(spec)[0].points[0]
        wanted = {"Layer 1": [], "Layer 2": []}
        for seed in range(2):
            digest = source.results[arm.at(seed).name]["data_digest"]
            net = reload(Finished("relu", folder, arm.at(seed), "final", digest, None), cache)
            zeros = activation_zeros(net.model, net.sample("train", 40))
            assert len(zeros) == 1 + 2 * 3
            for label, beginnings in (("Layer 1", ("blocks.0.",)), ("Layer 2", ("blocks.1.", "blocks.2."))):
                shares = [at.share for name, at in zeros.items() if name.startswith(beginnings)]
                assert len(shares) == 2 * len(beginnings)
                wanted[label].append(100 * sum(shares) / len(shares))
        read = readers["zeros"]
        for label, values in wanted.items():
            found = read([source], {"Activation": "ReLU", "Layer": label})
            assert found.value == pytest.approx(np.mean(values), abs=1e-9)
            assert found.spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)
            assert found.value > 10
            assert read([source], {"Activation": "Mish", "Layer": label}).value < 1
        assert read([source], {"Activation": "Swish", "Layer": "Layer 1"}) is None
        with pytest.raises(ValueError, match="no activation was measured in output"):
            read([source], {"Activation": "ReLU", "Layer": "Layer 3"})


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(1).mean()


def jsd(*every):
    return np.mean([kl(p, sum(every) / len(every)) for p in every])


@pytest.fixture(scope="module")
def tickets(small_npz, tmp_path_factory):
    torch.set_num_threads(1)
    return Study(tmp_path_factory.mktemp("tickets") / "out", small_npz).train()


@pytest.mark.parametrize(
    ("name", "axis"), [("004.table2.lenet5", "Initialization"), ("004.table6.lenet5", "Init. Method")]
)
def test_likeness_is_that_of_the_networks(tickets, name, axis):
    wanted = experiment(name)
    fields = {"calls": {**wanted.calls, "own inits": wanted.calls["scratch own inits"]}, "options": wanted.options}
    read = readers["likeness"]
    with source_of(tickets.spec, tickets.folder, **fields) as source:
        if not (tickets.folder / "likeness").exists():
            assert read([source], {axis: "LT", "Measure": "Ensemble"}) is None  # not compared yet
    tickets.compare()
    nets = tickets.nets()
    x, y = (torch.cat(parts) for parts in zip(*nets["pruned@0"].sample("test", 60), strict=True))
    with torch.no_grad():
        p = {label: softmax(net.model.double()(x.double()).numpy()) for label, net in nets.items()}
    y, one = y.numpy(), p["pruned@0"]
    said = {label: q.argmax(1) for label, q in p.items()}
    printed = items()[name].printed
    names = {"LT": "ticket", "Scratch": "scratch", "Scratch (Diff. Init.)": "own inits", "Prune Restart": "restart",
             "5 Diff. Pruned": "pruned", "Pruned w/ Diff. Init.": "pruned"}  # fmt: skip
    with source_of(tickets.spec, tickets.folder, **fields) as source:
        for (row,) in printed.rows:
            cells = {c: read([source], {axis: row, "Measure": c}) for (c,) in printed.columns}
            own = [p[f"{names[row]}@{seed}"] for seed in SEEDS] if row in names else []
            labels = [f"{names[row]}@{seed}" for seed in SEEDS] if row in names else []
            for column, cell in cells.items():
                if row == "Pruned Soln.":
                    expected = [100 * tickets.found()[0].reference.accuracy] if "Acc" in column else None
                elif "Acc" in column:
                    expected = [100 * (said[label] == y).mean() for label in labels]
                elif column == "Ensemble":
                    expected = [100 * (sum(own).argmax(1) == y).mean()]
                elif column in ("Disagree.", "Pairwise Disagree."):
                    expected = [(said[a] != said[b]).mean() for a, b in combinations(labels, 2)]
                elif column == "Disagree. w/ Pruned":
                    expected = [(said[a] != said["pruned@0"]).mean() for a in labels]
                elif column == "Pairwise KL":
                    expected = [kl(a, b) for a, b in permutations(own, 2)]
                elif column == "KL w/ Pruned":
                    expected = [kl(a, one) for a in own]
                elif column == "5-model JSD":
                    expected = [jsd(*own)]
                else:
                    assert column == "JSD w/ Pruned"
                    expected = [jsd(a, one) for a in own]
                if expected is None:
                    assert cell is None, (row, column)
                    continue
                assert cell.value == pytest.approx(np.mean(expected), abs=1e-6), (row, column)
                if len(expected) > 1:
                    assert cell.spread == pytest.approx(np.std(expected, ddof=1), abs=1e-6), (row, column)
                else:
                    assert isnan(cell.spread)
        with pytest.raises(ValueError, match="no quantity 'Disagreement'"):
            read([source], {axis: "LT", "Measure": "Disagreement"})


def untrained(name):
    """Sources of an experiment before any run."""
    one = experiment(name)
    found = []
    for part in one.parts:
        spec = validate(ArmsSpec, part.content)
        content = {"spec": spec.changes(), "facts": {}}
        found.append(Source(one, part, ReportStudy(spec.study_name, content, None, None), "arms"))
    return found


SAID = {
    "ImageNet": "ImageNet", "MNIST": "MNIST", "Cosine": "cosine", "Step": "step", "≈ 102": "102",
    "1 × 10^-4": "0.0001", "5 × 10^-4": "0.0005", "32000": "31926", "128000": "127704", "11719": "11730",
    "25000": "24902",
}  # fmt: skip
"""The paper's words -> ours. It counts parts of a step in an epoch, and about 102 epochs."""


@pytest.mark.parametrize("name", ["004.table3", "004.table4"])
def test_settings_are_those_that_the_paper_prints(name):
    one, printed, sources = experiment(name), items()[name].printed, untrained(name)
    read = readers["settings"]
    for places, cells in zip(printed.places(one.columns), printed.cells, strict=True):
        for place, cell in zip(places, cells, strict=True):
            found = read(sources, place)
            assert not found.is_number
            if cell.text:
                assert found.text == SAID.get(cell.text, cell.text), place
    assert read([], {"Setting": "LR"}) is None
    assert read(sources, {"Setting": "Colour", "Network": "LeNet5"}) is None
    both = read(sources, {"Setting": "LR"})
    assert both.text.split(", ")[:2] == ["0.05", "1.6"]


def test_settings_of_comparisons_of_pairs_and_wrong_paths():
    fields = {
        "Width": "dense_widths", "Optimizers": "compare.optimizers", "Batch": "base.train.batch_size",
        "Wrong": ["base.train.batches", "nowhere"], "Layers": "base.model.depth",
    }  # fmt: skip
    sources = []
    for depth in (1, 4):
        content = {"data": {"name": "cifar-100"}, "model": {"depth": depth}, "compare": {"optimizers": ["sgd", "adam"]}}
        spec = validate(CompareSpec, content)
        part = Part({"Hidden Layers": str(depth)}, content)
        deep = {"Hidden Layers": {"4": "four"}}
        one = Experiment("000.table2", (part,), options={"fields": fields}, relabel=deep)
        study = ReportStudy("x", {"spec": spec.changes(), "facts": {}}, None, None)
        sources.append(Source(one, part, study, "compare"))
    read = readers["settings"]
    assert read(sources, {"Setting": "Width"}).text == "308, 923, 1538, 2153, 2768"
    assert read(sources, {"Setting": "Optimizers"}).text == "sgd, adam"
    assert read(sources, {"Setting": "Batch"}).text == "128"
    assert read(sources, {"Setting": "Layers"}).text == "1, 4"
    assert read(sources, {"Setting": "Layers", "Hidden Layers": "four"}).text == "4"  # as the table has it
    with pytest.raises(ValueError, match=r"no setting base.train.batches \(train.batches\); nowhere \(nowhere\)"):
        read(sources, {"Setting": "Wrong"})
