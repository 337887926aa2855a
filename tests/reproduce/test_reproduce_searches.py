"""The reader of searches, on searches that were really carried out."""

from __future__ import annotations

from statistics import mean

import pytest

from sparseflow.report import Study, write_report
from sparseflow.reproduce.experiment import Experiment, Part
from sparseflow.reproduce.readers import readers
from sparseflow.reproduce.source import Source
from sparseflow.search import SearchSpec
from sparseflow.study import Store, validate
from test_search_study import BASE, carry_out

RELABEL = {"Search Alg": {"random": "Random"}, "Hidden layers": {"1": "1.0", "2": "2.0"}}


@pytest.fixture(scope="module")
def source(small_npz, tmp_path_factory):
    """Searches at two depths, with one density for all layers and one for each."""
    folder = tmp_path_factory.mktemp("searches")
    base = {**BASE, "data": {"name": str(small_npz)}, "train": {**BASE["train"], "epochs": 2}}
    base["measure"] = {"points": 1, "gradient_flow": False, "train_accuracy": True}
    cross = {"base.model.depth": [1, 2], "uniform": [False, True]}
    content = {"kind": "search", "base": base, "score": "test", "samples": 3, "seeds": 2, "cross": cross}
    carry_out(validate(SearchSpec, content), folder)
    store = Store(folder)
    name, kind, stored = store.studies()[0]
    made = Experiment("001.tableB.1a", relabel=RELABEL)
    yield Source(made, Part({"Dataset": "CIFAR-10"}, content), Study(name, stored, store, folder), kind)
    store.close()


def cell(source, quantity, algorithm, layers="2.0", **more):
    place = {"Hidden layers": layers, "Search Alg": algorithm, "Quantity": quantity, **more}
    return readers["search"]([source], place)


def best(source, depth=2):
    """The winner of the better of the two searches, and the dense network's accuracies."""
    of = [(found, after) for quest, found, after in source.searches if quest.spec.plain().model.depth == depth]
    found, after = max(of, key=lambda pair: (pair[0].winner.score, -pair[0].winner.active))
    return found, {result.arm.name: [100 * m.accuracy for m in result.members] for result in after}


@pytest.mark.parametrize("depth", [1, 2])
def test_the_cells_of_a_winner(source, depth):
    found, again = best(source, depth)
    layers = f"{depth}.0"
    trial = found.winner
    assert trial.score == max(
        t.score for quest, one, _ in source.searches if quest.spec.plain().model.depth == depth for t in one.trials
    )
    assert cell(source, "Accuracy", "Random", layers).value == 100 * trial.score
    assert f"{mean(again['winner']):.2f}" in cell(source, "Accuracy", "Random", layers).hint
    assert cell(source, "# Weights (M)", "Random", layers).value == trial.active / 1e6
    gain = cell(source, "Δ Accuracy", "Random", layers)
    assert gain.value == pytest.approx(100 * trial.score - mean(again["dense"]))
    assert gain.against == pytest.approx([a - b for a, b in zip(again["winner"], again["dense"], strict=True)])
    assert cell(source, "% Dense", "Random", layers).value == pytest.approx(100 * found.share(trial))
    assert cell(source, "Sparsity", "Random", layers).value == pytest.approx(100 - 100 * found.share(trial))
    assert cell(source, "Density", "Random", layers).text == f"[{', '.join(f'{d:.3g}' for d in trial.vector)}]"


def test_the_cells_of_the_dense_network(source):
    _, again = best(source)
    accuracy = cell(source, "Accuracy", "Dense Baseline")
    assert (accuracy.value, accuracy.n) == (pytest.approx(mean(again["dense"])), 2), "shared by both searches"
    weights = 108 * 12 + 12 * 12 + 12 * 4
    assert cell(source, "# Weights (M)", "Dense Baseline").value == weights / 1e6
    assert cell(source, "# Params (M)", "Dense Baseline").value >= weights / 1e6
    assert cell(source, "Δ Accuracy", "Dense Baseline").value == 0
    assert cell(source, "% Dense", "Dense Baseline").value == 100
    assert cell(source, "Density", "Dense Baseline").text == "[1.0]"
    method = {"Method": "Dense", "Quantity": "Accuracy", "Hidden layers": "2.0"}
    assert readers["search"]([source], method) == accuracy


def test_a_cell_without_an_axis_is_the_best_of_all(source):
    every = {"Architecture": "MLP (SNAS - Ours)", "Source": "own", "Quantity": "Test Accuracy", "Dataset": "CIFAR-10"}
    highest = max(found.winner.score for _, found, _ in source.searches)
    assert readers["search"]([source], every).value == 100 * highest


def test_what_was_quoted_or_not_searched_has_no_cell(source):
    assert cell(source, "Accuracy", "Random", Source="quoted") is None
    assert cell(source, "Accuracy", "Bayes") is None
    assert cell(source, "Accuracy", "Random", "4.0") is None
    assert cell(source, "Accuracy", "Random", Dataset="CIFAR-100") is None


def test_claims_see_winners_and_the_dense_network(source):
    found, again = best(source)
    runs = [run for run in source.observed if run.labels["Hidden layers"] == "2.0"]
    seen = {
        algorithm: [r for r in runs if r.labels["Search Alg"] == algorithm]
        for algorithm in ("Random", "Dense Baseline")
    }
    assert [run.values["accuracy"] for run in seen["Random"]] == again["winner"]
    assert [run.values["accuracy"] for run in seen["Dense Baseline"]] == again["dense"]
    assert len(runs) == 4
    assert {run.values["weights"] for run in seen["Random"]} == {found.winner.active}
    assert all(0 < run.values["training accuracy"] <= 100 for run in runs)
    assert {run.labels["Dataset"] for run in runs} == {"CIFAR-10"}


def test_the_figure_by_depth_has_the_training_accuracy(source):
    study = source.study
    write_report(study.store, study.folder)
    lines = (study.folder / "figures" / "search-depth.csv").read_text().splitlines()
    rows = {tuple(line.split(",")[1:4]): float(line.split(",")[4]) for line in lines[1:]}
    quantities = ("test accuracy (%)", "training accuracy (%)", "active weights")
    assert rows.keys() == {(what, arm, depth) for what in quantities for arm in ("dense", "random") for depth in "12"}
    found, again = best(source)
    assert rows["test accuracy (%)", "random", "2"] == pytest.approx(mean(again["winner"]))
    assert rows["test accuracy (%)", "dense", "2"] == pytest.approx(mean(again["dense"]))
    assert rows["active weights", "random", "2"] == found.winner.active
