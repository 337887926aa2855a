"""Activation sparsity and curvature of named arms: measured along training, and what the report says of them."""

from __future__ import annotations

import csv
from statistics import mean, stdev

import pytest

from sparseflow.measure import Zeros, activation_zeros
from sparseflow.report import write_report
from sparseflow.study import (
    ArmsSpec,
    DataCache,
    FactsBook,
    Store,
    Surroundings,
    arms_of,
    execute,
    validate,
)
from sparseflow.study.build import build
from sparseflow.train import checkpoint

POINTS = 2


@pytest.fixture(scope="module")
def written(small_npz, tmp_path_factory):
    """(folder, page, arms, store) of a study that measured both."""
    tmp_path, cache = tmp_path_factory.mktemp("written"), DataCache(Surroundings())
    base = {
        "data": {"name": str(small_npz)},
        "model": {"name": "lenet-5", "width": 3},
        "train": {"epochs": 2, "batch_size": 32},
        "measure": {"points": POINTS, "probe_size": 64, "activations": True},
    }
    sparse = {"mask": {"density": 0.05}, "measure": {"eigenvalues": 2}}
    arms = {"dense": {}, "sparse": sparse, "blind": {"measure": {"activations": False}}}
    spec = validate(ArmsSpec, {"base": base, "arms": arms, "seeds": 2})
    made = arms_of(spec)
    store = Store(tmp_path, create=True)
    book = FactsBook.of((arm.points[0].spec for arm in made), cache)
    store.put_study(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    for arm in made:
        for seed in spec.run_seeds:
            run = arm.points[0].at(seed)
            store.start_run(run)
            rows: list = []
            store.put_result(run, execute(run, Surroundings(), cache, rows.extend))
            store.put_metrics(run.name, rows)
    page = write_report(store, tmp_path).read_text()
    yield tmp_path, page, made, store
    store.close()


def lines(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_report_has_every_layer_in_the_model_s_order(written):
    folder, page, _, store = written
    drawn = lines(folder / "figures" / "activations.csv")
    assert {row["arm"] for row in drawn} == {"dense", "sparse"}
    order = ["first.activation", "second.activation", "third_activation", "fourth_activation"]
    assert [row["layer"] for row in drawn if row["arm"] == "sparse"] == order
    last: dict = {}
    for run, _, _, layer, _, value in store.values(["activation_sparsity"]):
        last.setdefault(run, {})[layer] = value
    spec_runs = {row["run"]: row["arm"] for row in lines(folder / "runs.csv")}
    for row in drawn:
        values = [100 * layers[row["layer"]] for run, layers in last.items() if spec_runs[run] == row["arm"]]
        assert float(row["mean_percent"]) == pytest.approx(mean(values))
        assert float(row["std"]) == pytest.approx(stdev(values))
        assert all(0 <= value <= 100 for value in values)
    assert "Activation sparsity" in page
    assert "Curvature along training" in page


def test_what_is_recorded_is_what_the_library_measures(written, cache, tmp_path):
    _, _, made, _ = written
    run = made[1].points[0].at(0)
    rows: list = []
    kept = Surroundings(checkpoints=tmp_path / "kept", keep=True)
    execute(run, kept, cache, rows.extend)
    data = cache.prepared(run)
    network = build(run, data.input_shape, data.classes)
    network.model.load_state_dict(checkpoint.load(kept.final_path(run.name))["state_dict"])
    x, y = data.probe(64)
    expected = activation_zeros(network.model, [(data.normalise(x), y)])
    recorded = {layer: value for *_, metric, layer, value in rows if metric == "activation_sparsity"}
    assert recorded == {"": sum(expected.values(), Zeros(0, 0)).share} | {n: z.share for n, z in expected.items()}
    whole = [value for *_, metric, layer, value in rows if metric == "activation_sparsity" and layer == ""]
    assert len(whole) == len({step for step, *_, metric, _, _ in rows if metric == "point"})
    tops = {metric for _, _, metric, _, _ in rows if "eigenvalue" in metric}
    assert tops == {"top_eigenvalue_1", "top_eigenvalue_2", "bottom_eigenvalue_1", "bottom_eigenvalue_2"}
    by_metric = {metric: value for _, _, metric, layer, value in rows if layer == ""}
    assert by_metric["top_eigenvalue_1"] >= by_metric["top_eigenvalue_2"] >= by_metric["bottom_eigenvalue_1"]
