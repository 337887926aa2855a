"""A run keeps its name for ever: results are found again by it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from sparseflow.core import BadSpec
from sparseflow.models import models
from sparseflow.study import ArmsSpec, CompareSpec, RunSpec, arms_of, cells, first_runs, read_preset, runs_of, validate
from sparseflow.study.sections import ModelSpec

GOLDEN = {
    "44136fa355b3678a": {},
    "fbe47f6d82b435a8": {"seed": 1},
    "be2038588f8d9a44": {"model": {"width": 68}},
    "e16e74323292edf0": {"model": {"width": 4, "activation": "swish", "norm": "batch"}},
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


# What mlp's fields were when the first runs were named.
MLP_DEFAULTS = {
    "depth": 4,
    "width": None,
    "activation": "relu",
    "norm": "none",
    "norm_affine": True,
    "skip": False,
    "dropout": 0.0,
}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("mlp"),
            "depth": st.integers(1, 5),
            "width": st.sampled_from([None, 3, 68]),
            "activation": st.sampled_from(["relu", "swish", "prelu"]),
            "norm": st.sampled_from(["none", "batch", "layer"]),
            "norm_affine": st.booleans(),
            "skip": st.booleans(),
            "dropout": st.sampled_from([0.0, 0, 0.25]),
        },
    )
)
def test_a_perceptrons_name_is_the_hash_of_what_differs_from_the_first_defaults(fields: dict[str, Any]):
    content = {"model": fields}
    whole = MLP_DEFAULTS | fields
    if (whole["skip"] and whole["depth"] < 3) or (whole["norm"] == "none" and not whole["norm_affine"]):
        with pytest.raises(BadSpec):
            validate(RunSpec, content)
        return
    differing = {key: value for key, value in fields.items() if key != "name" and value != MLP_DEFAULTS[key]}
    changes = {"model": differing} if differing else {}
    text = json.dumps(changes, sort_keys=True, separators=(",", ":"))
    assert validate(RunSpec, content).name == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", models.names)
def test_a_models_own_default_changes_no_name(name):
    """Written out or left out it is the same run, and what is stored of a run gives the run back."""
    bare = validate(RunSpec, {"model": {"name": name}})
    assert bare.changes() == ({} if name == "mlp" else {"model": {"name": name}})
    for option, value in models.entry(name).facts["options"].items():
        assert validate(RunSpec, {"model": {"name": name, option: value}}) == bare
    other = validate(RunSpec, {"model": {"name": name, "width": 7, "activation": "swish"}})
    assert other.changes()["model"].items() >= {"width": 7, "activation": "swish"}.items()
    assert validate(RunSpec, other.changes()) == other == RunSpec.model_validate_json(other.model_dump_json())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "lenet-5", "depth": 4},
            "'depth' (it has: width, widths, padding, activation, norm, norm_affine)",
        ),
        ({"name": "lenet-5", "padding": -1}, "padding must not be negative, got -1"),
        ({"name": "vgg16", "stem": "cifar"}, "no option 'stem'"),
        ({"shortcut": "pad"}, "model 'mlp' has no option 'shortcut'"),
        ({"name": "resnet", "depth": 21}, "must be 6 n + 2"),
        ({"name": "wide-resnet", "depth": 32}, "must be 6 n + 4"),
        ({"name": "resnet-18", "norm": "layer"}, "must be one of batch, none"),
        ({"name": "lenet5"}, "did you mean 'lenet-5'?"),
        ({"name": 5}, "valid string"),
        ({"name": ["mlp"]}, "valid string"),
        ({"stem": "small"}, "'cifar' or 'imagenet'"),
    ],
)
def test_a_model_is_told_only_what_it_takes(model, message):
    with pytest.raises(BadSpec) as caught:
        validate(RunSpec, {"model": model})
    assert message in str(caught.value)


def test_the_arms_study_keeps_its_runs():
    spec = validate(ArmsSpec, read_preset("arms-digits"))
    names = [run.name for run in first_runs(spec, arms_of(spec))]
    assert len(names) == len(set(names)) == 9 + 9
    assert spec.study_name == "arms-be870f036cd5"
    assert names[:2] == ["358a12ccf7c22cf9", "dda55538c2feeeeb"]
