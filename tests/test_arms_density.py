"""Figures against density: drawn where the last axis of a cross is one, of the numbers that were measured."""

from __future__ import annotations

import csv
from statistics import mean, stdev

import pytest

from arms_results import FACTS, ended, facts, study
from sparseflow.report import write_report
from sparseflow.report.arms_density import density_lines, panels_of
from sparseflow.study import FactsBook, Store, arm_results, arms_of
from test_arms_report import FactsBookKeys

DENSITIES = [1.0, 0.1, 0.01]
ROWS = {"r": {"cross": {"norm": {"none": {}, "batch": {"model": {"norm": "batch"}}}, "mask.density": DENSITIES}}}
NORMS = {"none": {}, "batch": {"model": {"norm": "batch"}}, "layer": {"model": {"norm": "layer"}}}
DECAYS = [0.0, 0.1, 0.2]


def made(spec, folder, of, flow=None):
    """The report of runs that ended as `of` says for an arm and a seed; page and the figures' rows.

    Args:
        flow: for an arm and a seed, EGF_2 at the measuring points.
    """
    store = Store(folder, create=True)
    book = FactsBook(dict.fromkeys(FactsBookKeys(spec), FACTS))
    store.put_study(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    for arm in arms_of(spec):
        for seed in spec.run_seeds if of is not None else ():
            run = arm.points[0].at(seed)
            store.start_run(run)
            store.put_result(run, of(arm, seed))
            measured = enumerate(flow(arm, seed)) if flow is not None else ()
            store.put_metrics(run.name, [(k, k / 2, "egf_2", "", value) for k, value in measured])
    page = write_report(store, folder).read_text()
    store.close()
    tables = {}
    for name in ("density-accuracy", "density-flow"):
        path = folder / "figures" / f"{name}.csv"
        if path.exists():
            with path.open() as file:
                tables[name] = list(csv.DictReader(file))
    return page, tables


def accuracy(arm, seed):
    """Of its own for every arm and seed."""
    place = DENSITIES.index(float(arm.levels["mask.density"])) if arm.levels else 0
    return 0.9 - 0.2 * place - 0.1 * (arm.levels.get("norm") == "batch") - 0.01 * seed


def test_the_points_are_means_and_deviations_over_seeds(tmp_path):
    spec = study({"dense": {}, **ROWS})
    page, tables = made(spec, tmp_path, lambda arm, seed: ended(test=accuracy(arm, seed)))
    rows = {(row["line"], float(row["density"])): row for row in tables["density-accuracy"]}
    arms = {(" ".join(arm.place[:-1]), float(arm.place[-1])): arm for arm in arms_of(spec) if arm.levels}
    assert rows.keys() == arms.keys()
    assert len(rows) == 6
    for key, row in rows.items():
        values = [100 * accuracy(arms[key], seed) for seed in range(3)]
        assert float(row["mean"]) == pytest.approx(mean(values))
        assert float(row["std"]) == pytest.approx(stdev(values))
        assert float(row["high"]) - float(row["mean"]) == pytest.approx(stdev(values))
        assert row["n"] == "3"
    densities = [row["density"] for row in tables["density-accuracy"] if row["line"] == "r batch"]
    assert densities == ["0.01", "0.1", "1.0"]
    assert "Test accuracy against density" in page
    assert "Dashed: mean of dense." in page
    assert "density-flow" not in tables, "no gradient flow was measured"


def test_gradient_flow_is_averaged_over_points_and_a_dead_network_has_no_point(tmp_path):
    def flow(arm, seed):
        return [0.0, 0.0] if arm.name == "r none 0.01" else [1.0 + seed, 3.0 + seed]

    _, tables = made(study(ROWS, seeds=2), tmp_path, lambda arm, seed: ended(), flow)
    rows = tables["density-flow"]
    assert len(rows) == 5
    assert {(float(row["mean"]), float(row["low"]), float(row["high"])) for row in rows} == {(2.5, 2.0, 3.0)}


@pytest.mark.parametrize(
    "arms",
    [
        {"dense": {}, "plain": {"mask": {"density": 0.5}}},
        {"a": {"cross": {"mask.density": [0.5, 0.2], "model.norm": ["none", "batch"]}}},
        {"a": {"cross": {"mask.density": [0.5, 0.2], "optimizer.weight_decay": [0.1, 0.2]}}},
        {"a": {"cross": {"mask.density": {"much": {"mask": {"density": 0.5}}, "little": {"mask": {"density": 0.2}}}}}},
    ],
    ids=["no cross", "not the last axis", "numbers of another kind", "labels that are no numbers"],
)
def test_other_studies_have_no_such_figure(arms, tmp_path):
    page, tables = made(study(arms), tmp_path, lambda arm, seed: ended())
    assert not tables
    assert "against density" not in page


def test_nothing_has_ended(tmp_path):
    page, _ = made(study(ROWS), tmp_path, None)
    assert "against density" not in page


def test_many_lines_are_panels_and_lines_without_their_axis_are_in_each():
    spec = study(
        {
            "r": {"cross": {"model.norm": list(NORMS), "optimizer.weight_decay": DECAYS, "mask.density": DENSITIES}},
            "elsewhere": {"init": {"scheme": "glorot"}, "cross": {"mask.density": DENSITIES}},
        }
    )
    lines = density_lines(arm_results(spec, arms_of(spec), {}, facts))
    assert len(lines) == 10
    axis, panels = panels_of(lines)
    assert axis == "model.norm"
    assert [title for title, _ in panels] == list(NORMS)
    for title, shown in panels:
        assert [line.label for line in shown] == [*(f"r {title} {d}" for d in DECAYS), "elsewhere"]
    assert panels_of(lines[:8]) == (None, [("", lines[:8])])


def test_every_panel_is_drawn(tmp_path):
    arms = {
        "r": {"cross": {"model.norm": list(NORMS), "optimizer.weight_decay": DECAYS, "mask.density": DENSITIES}},
        "swish": {"model": {"activation": "swish"}, "cross": {"mask.density": DENSITIES}},
    }
    page, tables = made(study(arms, seeds=1), tmp_path, lambda arm, seed: ended())
    rows = tables["density-accuracy"]
    assert len(rows) == 3 * (3 + 1) * 3
    assert {row["panel"] for row in rows if row["line"] == "swish"} == set(NORMS)
    assert "A panel for each norm; swish: in every panel." in page
