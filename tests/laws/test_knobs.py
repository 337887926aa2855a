"""No option does nothing: every field of a run changes its weights, its measurements or its execution."""

from __future__ import annotations

import pytest

from sparseflow.study import RunSpec, Surroundings, execute
from sparseflow.study.spec import Section

# field -> (a value other than the base's, what else the base needs for it to matter)
KNOBS = {
    "data.name": ("digits", {"data": {"train_limit": 160}}),
    "data.train_limit": (100, {}),
    "data.val_fraction": (0.25, {}),
    "data.augment": (True, {}),
    "model.name": None,  # one model so far; the catalog laws test every one
    "model.depth": (4, {}),
    "model.width": (30, {}),
    "model.activation": ("swish", {}),
    "model.norm": ("batch", {}),
    "model.norm_affine": (False, {"model": {"norm": "batch"}}),
    "model.skip": (True, {}),
    "model.dropout": (0.5, {}),
    "mask.twin_width": (8, {}),
    "mask.matching": ("active-neurons", {}),
    "mask.density": (0.3, {"mask": {"twin_width": None}}),
    "mask.execution": ("compact", {}),
    "init.scheme": ("glorot", {}),
    "init.distribution": ("uniform", {}),
    "init.fan": ("out", {}),
    "init.fans": ("own", {}),
    "optimizer.name": ("sgd", {}),
    "optimizer.lr": (0.01, {}),
    "optimizer.weight_decay": (0.1, {}),
    "optimizer.decay_others": (False, {"optimizer": {"weight_decay": 0.1}, "model": {"norm": "batch"}}),
    "optimizer.l1": (0.01, {}),
    "optimizer.momentum": (0.5, {}),
    "optimizer.smoothing": (0.9, {"optimizer": {"name": "rmsprop"}}),
    "optimizer.beta1": (0.5, {"optimizer": {"name": "adam"}}),
    "optimizer.beta2": (0.9, {"optimizer": {"name": "adam"}}),
    "optimizer.eps": (0.1, {"optimizer": {"name": "adam"}}),
    "optimizer.implementation": None,  # equal numbers by design; test_optimizer_implementations holds it
    "optimizer.schedule.name": ("cosine", {}),
    "optimizer.schedule.milestones": ((1,), {"optimizer": {"schedule": {"name": "step", "milestones": (0.5,)}}}),
    "optimizer.schedule.gamma": (0.5, {"optimizer": {"schedule": {"name": "step", "milestones": (1,)}}}),
    "optimizer.schedule.final": (0.5, {"optimizer": {"schedule": {"name": "cosine"}}}),
    "optimizer.schedule.warmup_epochs": (1.0, {}),
    "train.epochs": (3, {}),
    "train.batch_size": (16, {}),
    "train.dtype": ("float64", {}),
    "train.eval_every": (0, {"measure": {"points": 0}}),
    "train.stack": ("never", {}),
    "measure.points": (5, {}),
    "measure.gradient_flow": (False, {}),
    "measure.probe_size": (40, {}),
    "measure.average": ("norms", {}),
    "measure.batch_norm": ("eval", {"model": {"norm": "batch"}}),
    "measure.others": (True, {"model": {"activation": "prelu"}}),
    "measure.per_weight": (True, {}),
    "seed": (1, {}),
}


def leaves(section: type[Section], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found += leaves(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def laid_over(base: dict, change: dict) -> dict:
    result = dict(base)
    for key, value in change.items():
        result[key] = laid_over(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def test_every_field_is_listed():
    assert sorted(KNOBS) == sorted(leaves(RunSpec))


@pytest.mark.parametrize("knob", [k for k, v in KNOBS.items() if v is not None])
def test_the_knob_changes_something(knob, small, cache):
    value, needs = KNOBS[knob]
    base = laid_over(small().changes(), needs)
    *path, last = knob.split(".")
    change: dict = {last: value}
    for part in reversed(path):
        change = {part: change}
    before, after = (_everything(RunSpec.model_validate(c), cache) for c in (base, laid_over(base, change)))
    assert before != after


def _everything(spec, cache):
    rows: list = []
    result = execute(spec, Surroundings(), cache, rows.extend)
    return result.digest, result.execution, result.stacked, sorted(rows)
