"""What the report of named arms says, against numbers computed here."""

from __future__ import annotations

import csv
from dataclasses import asdict
from itertools import product
from statistics import mean, stdev

import pytest

from arms_results import FACTS, GRID, ended, facts, read_tables, study
from sparseflow.report import write_report
from sparseflow.report.arms_figures import MOST_LINES, groups
from sparseflow.report.arms_tables import cross_tables
from sparseflow.study import FactsBook, Store, arm_results, arms_of


def reported(spec, runs, folder):
    """The report of these results: page and tables."""
    store = Store(folder, create=True)
    book = FactsBook(dict.fromkeys(FactsBookKeys(spec), FACTS))
    store.put_study(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    for run, result in runs:
        store.start_run(run)
        store.put_result(run, result)
        store.put_metrics(run.name, [(s, s / 2, "test_loss", "", 1.0 / s) for s in (1, 2, 3)])
    page = write_report(store, folder).read_text()
    store.close()
    return page, read_tables(folder)


def FactsBookKeys(spec):
    return {p.spec.data.model_dump_json(exclude_defaults=True) for arm in arms_of(spec) for p in arm.points}


def test_the_report_says_what_the_runs_say(tmp_path):
    """Every number against one computed here."""
    spec = study(
        {"dense": {},
         "r": {"cross": {"how": {"one": {}, "two": {"model": {"norm": "batch"}}}, "mask.density": [0.2, 0.1]}},
         "tuned": {"grid": {"optimizer.lr": [0.5, 0.25]}}},
        versus="dense", grid_seeds=1, score="test", description="Why not.",
    )  # fmt: skip
    accuracy = {
        "dense": (0.50, 0.54, 0.58), "r one 0.2": (0.60, 0.62, 0.70), "r one 0.1": (0.30, 0.36, 0.20),
        "r two 0.2": (0.60, 0.60, 0.60), "r two 0.1": (0.40, 0.44, 0.30), "tuned": (0.80, 0.82, 0.84),
    }  # fmt: skip
    runs = []
    for arm in arms_of(spec):
        runs += [
            (p.at(1000), ended(test=0.7 if p.spec.optimizer.lr == 0.25 else 0.4)) for p in arm.points if arm.chosen
        ]
        point = arm.points[-1]
        for seed, value in enumerate(accuracy[arm.name]):
            kind = ended("diverged") if arm.name == "r two 0.1" and seed == 2 else ended(test=value, loss=3 * value)
            runs.append((point.at(seed), kind))
    accuracy["r two 0.1"] = (0.40, 0.44, 0.10)  # guessing among ten
    page, found = reported(spec, runs, tmp_path)
    lines = {row["arm"]: row for row in found["arms"]}
    for name, values in accuracy.items():
        assert float(lines[name]["test_accuracy"]) == pytest.approx(mean(values))
        assert float(lines[name]["test_accuracy_std"]) == pytest.approx(stdev(values))
        assert f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f} (3)" in page
        assert float(lines[name]["active_weights"]) == 1200
        assert float(lines[name]["density"]) == pytest.approx(1200 / (64 * 68 + 68 * 10))
    assert lines["r two 0.1"]["diverged"] == "1"
    # One best cell in each column of the cross, and the highest mean of all arms.
    for name in ("r one 0.2", "r two 0.1", "tuned"):
        values = accuracy[name]
        dagger = " †1" if name == "r two 0.1" else ""
        assert f"<b>{100 * mean(values):.2f} ± {100 * stdev(values):.2f} (3){dagger}</b>" in page
    assert f"<b>{100 * mean(accuracy['r two 0.2']):.2f}" not in page
    # All five arms differ from dense with one sign or mixed ones: exact two-sided p of three pairs.
    assert {name: float(row["p"]) for name, row in lines.items() if row["p"]} == {
        "r one 0.2": 0.25, "r one 0.1": 0.25, "r two 0.2": 0.25, "r two 0.1": 0.25, "tuned": 0.25,
    }  # fmt: skip
    assert all(float(row["p_holm"]) == 1.0 for row in lines.values() if row["p"])
    assert float(lines["tuned"]["hl_difference"]) == pytest.approx(0.28)
    assert lines["tuned"]["chosen"] == "lr 0.25"
    for words in (
        "Why not.", "Of 6 arms tuned has the highest mean test accuracy, 82.00 %.", "0 of 5 tests against dense",
        "With 3 seeds no p below 0.25 is possible", "chosen by TEST accuracy, as the papers do",
        "Diverged runs: 1 of r two 0.1; they count as guessing", "The choice of tuned", "Test accuracy by mask.density",
    ):  # fmt: skip
        assert words in page, words
    with (tmp_path / "figures" / "curves.csv").open() as file:
        curve = [row for row in csv.DictReader(file) if row["arm"] == "dense"]
    assert [(float(row["epoch"]), float(row["mean"]), row["n"]) for row in curve] == [
        (0.5, pytest.approx(1.0), "3"), (1.0, pytest.approx(0.5), "3"), (1.5, pytest.approx(1 / 3), "3"),
    ]  # fmt: skip


def test_a_report_can_be_made_before_anything_has_ended(tmp_path):
    page, found = reported(study({"dense": {}, **GRID}, versus="dense"), [], tmp_path)
    assert "No run on the study&#39;s seeds has ended yet." in page
    assert {row["status"] for row in found["runs"]} == {"not started"}
    assert [row["ended"] for row in found["choices"]] == ["0", "0", "0"]
    assert "not yet" in page
    assert "Winners of grids were chosen by validation accuracy" in page
    assert "TEST" not in page


def test_every_arm_is_in_one_group_and_groups_fit_the_colours():
    levels = [0.9, 0.8, 0.7, 0.6, 0.5]
    for plain, rows in product((1, 3, 9, 20), (0, 1, 4)):
        arms = {f"a{k}": {"train": {"epochs": k + 1}} for k in range(plain)}
        arms |= {f"x{k}": {"model": {"width": 9 + k}, "cross": {"mask.density": levels}} for k in range(rows)}
        spec = study(arms)
        results = arm_results(spec, arms_of(spec), {}, facts)
        found = groups(results)
        assert sorted(r.arm.name for g in found for _, r in g.arms) == sorted(r.arm.name for r in results)
        assert all(1 <= len(g.arms) <= MOST_LINES for g in found)
        assert len({label for g in found for label, _ in g.arms}) >= 1
        assert (len(found) == 1) == (plain + rows * len(levels) <= MOST_LINES)


def test_entries_with_the_same_last_axis_share_a_table():
    spec = study(
        {
            "a": {"cross": {"mask.density": [0.5, 0.2]}},
            "b": {"model": {"norm": "batch"}, "cross": {"init.scheme": ["he", "glorot"], "mask.density": [0.5, 0.2]}},
            "c": {"model": {"norm": "layer"}, "cross": {"mask.density": [0.5, 0.3]}},
        }
    )
    made = cross_tables(arm_results(spec, arms_of(spec), {}, facts))
    assert [[str(row[0]) for row in table.rows] for table, _ in made] == [["a", "b he", "b glorot"], ["c"]]
    assert made[0][0].header == ["", "mask.density 0.5", "mask.density 0.2"]


def test_facts_survive_the_store():
    assert FactsBook.load({"{}": asdict(FACTS)}).dump() == {"{}": asdict(FACTS)}
