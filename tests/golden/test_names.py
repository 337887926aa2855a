"""A run keeps its name for ever: results are found again by it."""

from __future__ import annotations

from pydantic import Field

from sparseflow.study import ArmsSpec, CompareSpec, RunSpec, arms_of, cells, first_runs, read_preset, runs_of, validate
from sparseflow.study.spec import ModelSpec

GOLDEN = {
    "44136fa355b3678a": {},
    "fbe47f6d82b435a8": {"seed": 1},
    "a544b6b472ff4c80": {"data": {"name": "cifar-10"}, "mask": {"twin_width": 308}, "optimizer": {"name": "adam"}},
}


class Digits:
    input_size = 64


def test_golden_names():
    assert {RunSpec.model_validate(changes).name: changes for changes in GOLDEN.values()} == GOLDEN


def test_a_field_given_its_default_changes_no_name():
    assert validate(RunSpec, {"seed": 0, "model": {"depth": 4}, "mask": {"matching": "active-weights"}}) == RunSpec()


def test_a_default_added_later_changes_no_name():
    class LaterModel(ModelSpec):
        new_option: float = Field(default=0.3)

    class LaterRun(RunSpec):
        model: LaterModel = LaterModel()

    for name, changes in GOLDEN.items():
        assert LaterRun.model_validate(changes).name == name


def test_the_digits_study_keeps_its_runs():
    spec = validate(CompareSpec, read_preset("digits"))
    names = [run.name for run in runs_of(cells(spec, Digits()))]
    assert len(names) == len(set(names)) == 240
    assert spec.study_name == "compare-679ffb78da0a"
    assert names[:2] == ["809ef1c4674c0aa2", "b3dc0244f128cbbb"]


def test_the_arms_study_keeps_its_runs():
    spec = validate(ArmsSpec, read_preset("arms-digits"))
    names = [run.name for run in first_runs(spec, arms_of(spec))]
    assert len(names) == len(set(names)) == 9 + 9
    assert spec.study_name == "arms-be870f036cd5"
    assert names[:2] == ["358a12ccf7c22cf9", "dda55538c2feeeeb"]
