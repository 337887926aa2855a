"""What a report says of mask updates, and the panels that a study asks for, against numbers computed here."""

from __future__ import annotations

import csv
from statistics import mean, stdev

import pytest

from arms_results import FACTS, ended, facts, study
from sparseflow.core import BadSpec
from sparseflow.report import write_report
from sparseflow.report.arms_figures import MOST_LINES, groups
from sparseflow.study import FactsBook, Store, arm_results, arms_of

ARMS = {
    "dense": {},
    "static": {"mask": {"density": 0.1}},
    "SET": {"mask": {"density": 0.1}, "rewire": {"rule": "set"}},
    "RigL": {"mask": {"density": 0.1}, "rewire": {"rule": "rigl"}},
}
NORMS = {  # arm -> seed -> (before, after) of its updates
    "SET": [[(1.0, 1.0), (2.0, 1.5)], [(1.0, 1.25), (1.0, 1.0)], [(3.0, 3.5), (1.0, 1.5)]],
    "RigL": [[(1.0, 2.0), (2.0, 2.5)], [(1.0, 1.5), (1.0, 1.5)], [(1.0, 3.0), (1.0, 0.5)]],
}


def reported(spec, folder):
    store = Store(folder, create=True)
    sections = {p.spec.data.model_dump_json(exclude_defaults=True) for arm in arms_of(spec) for p in arm.points}
    book = FactsBook(dict.fromkeys(sections, FACTS))
    store.put_study(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    for arm in arms_of(spec):
        for seed in spec.run_seeds:
            run = arm.points[0].at(seed)
            store.start_run(run)
            store.put_result(run, ended())
            rows = [(4, 2.0, "test_loss", "", 1.0), (4, 2.0, "squared", "", 0.5)]
            for k, (before, after) in enumerate(NORMS.get(arm.name, [[]] * 3)[seed]):
                at = (k + 1, (k + 1) / 2)
                rows += [(*at, "gradient_norm_before", "", before), (*at, "gradient_norm_after", "", after)]
                rows += [(*at, "explored", "", 0.1 * (k + 2)), (*at, "density", "", 0.1), (*at, "density", "w", 0.1)]
                rows += [(*at, "dropped", "w", 7.0), (*at, "grown", "w", 7.0)]
            store.put_metrics(run.name, rows)
    page = write_report(store, folder).read_text()
    store.close()
    return page


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_changes_of_the_norm_are_after_less_before(tmp_path):
    page = reported(study(ARMS), tmp_path)
    drawn = rows_of(tmp_path / "figures" / "mask-updates.csv")
    for arm, seeds in NORMS.items():
        changes = [[after - before for before, after in runs] for runs in seeds]
        mine = [row for row in drawn if row["arm"] == arm and row["metric"] == "gradient_norm_change"]
        for update, row in enumerate(mine):
            at = [values[update] for values in changes]
            assert float(row["mean"]) == pytest.approx(mean(at))
            assert float(row["high"]) - float(row["mean"]) == pytest.approx(stdev(at))
        means = [mean(values) for values in changes]
        raised = [100 * mean(value > 0 for value in values) for values in changes]
        assert f"{mean(means):.4f} ± {stdev(means):.4f} (3)" in page
        assert f"{mean(raised):.0f} ± {stdev(raised):.0f} (3)" in page
        relative = [100 * m / mean(b for b, _ in runs) for m, runs in zip(means, seeds, strict=True)]
        assert f"{mean(relative):.1f} ± {stdev(relative):.1f} (3)" in page
    assert "30.0 ± 0.0 (3)" in page  # explored
    assert {row["arm"] for row in drawn} == set(NORMS)


def test_every_value_of_an_update_is_exported_layer_by_layer(tmp_path):
    spec = study(ARMS)
    reported(spec, tmp_path)
    rows = rows_of(tmp_path / "updates.csv")
    assert len(rows) == 2 * 3 * 2 * 7
    assert {row["metric"] for row in rows if row["layer"] == "w"} == {"dropped", "grown", "density"}
    names = {arm.points[0].at(seed).name: arm.name for arm in arms_of(spec) for seed in spec.run_seeds}
    assert all(names[row["run"]] == row["arm"] for row in rows)


def test_a_study_whose_masks_stay_says_nothing_of_updates(tmp_path):
    page = reported(study({"dense": {}, "static": ARMS["static"]}), tmp_path)
    assert "gradient norm" not in page
    assert not (tmp_path / "updates.csv").exists()
    assert not (tmp_path / "figures" / "mask-updates.svg").exists()


def test_panels_are_drawn_as_they_are_asked_for(tmp_path):
    panels = {"Dense and static": ["static", "dense"], "Rewired": ["RigL", "SET", "static"]}
    spec = study(ARMS, panels=panels)
    shown = groups(arm_results(spec, arms_of(spec), {}, facts), spec.panels)
    assert {group.title: [name for name, _ in group.arms] for group in shown} == panels
    page = reported(spec, tmp_path)
    figure = (tmp_path / "figures" / "gradient-flow.svg").read_text()
    assert all(title in figure for title in panels)
    assert all(title in page for title in panels)
    updates = (tmp_path / "figures" / "mask-updates.svg").read_text()
    assert "Rewired" in updates
    assert "Dense and static" not in updates  # no masks changed there


def test_a_panel_with_too_many_arms_goes_on_in_another_row():
    arms = {f"a{k}": {"train": {"epochs": k + 1}} for k in range(MOST_LINES + 3)}
    spec = study(arms, panels={"all": list(arms)})
    shown = groups(arm_results(spec, arms_of(spec), {}, facts), spec.panels)
    assert [name for group in shown for name, _ in group.arms] == list(arms)
    assert all(len(group.arms) <= MOST_LINES for group in shown)


@pytest.mark.parametrize(
    ("panels", "words"), [({"a": ["RigLe"]}, "did you mean 'RigL'"), ({"a": []}, "at least one arm")]
)
def test_panels_of_nothing_are_refused(panels, words):
    with pytest.raises(BadSpec, match=words):
        arms_of(study(ARMS, panels=panels))
