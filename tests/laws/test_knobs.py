"""No option does nothing: every field of a run changes its weights, its measurements or its execution."""

from __future__ import annotations

from typing import get_args

import pytest

from sparseflow.study import RunSpec, Surroundings, execute, legacy, with_predecessors
from sparseflow.study.spec import Section

DENSITY = {"twin_width": None, "density": 0.2}
SNIP = {**DENSITY, "criterion": "snip"}
GRADUAL = {**DENSITY, "gradual": {"start": 1, "end": 6, "every": 2}}
LOTTERY = {"twin_width": None, "lottery": {"round": 1}}
TOST = {"neurons": True, "until": 1}
CONV = {"model": {"name": "resnet", "depth": 8, "width": 4}, "mask": {"twin_width": 2}}
RESCALE = {"tost": {"rescale": {"iterations": 4}}}
OTHER = "the same run with a random mask"
INHERITED = {"twin_width": None, "inherited": {"run": OTHER}}
REWIRE = {"rule": "set", "every": 2, "stop": 1.0}

# field -> (a value other than the base's, what else the base needs for it to matter)
KNOBS = {
    "data.name": ("digits", {"data": {"train_limit": 160}}),
    "data.train_limit": (100, {}),
    "data.test_limit": (50, {}),
    "data.val_fraction": (0.25, {}),
    "data.augment": (True, {}),
    "data.crop": ("resized", {"data": {"augment": True}}),
    "data.scaling": ("unit", {}),
    "data.image_size": None,  # for folders of images alone; test_data_folder holds it
    "model.options": None,  # of a model of one's own: test_own_model holds it
    "model.name": ("lenet-300-100", {"model": {"depth": None}}),
    "model.depth": (4, {}),
    "model.width": (30, {}),
    "model.widths": ((9, 5), {"model": {"name": "lenet-300-100", "depth": None}}),
    "model.padding": (2, {"model": {"name": "lenet-5", "depth": None}}),
    "model.activation": ("swish", {}),
    "model.norm": ("batch", {}),
    "model.norm_affine": (False, {"model": {"norm": "batch"}}),
    "model.skip": (True, {}),
    "model.shortcut": ("conv", {"model": {"name": "resnet", "depth": 8, "width": 4}, "mask": {"twin_width": 2}}),
    "model.stem": ("imagenet", {"model": {"name": "resnet-18", "depth": None, "width": 4}, "mask": {"twin_width": 2}}),
    "model.dropout": (0.5, {}),
    "mask.twin_width": (8, {}),
    "mask.matching": ("active-neurons", {}),
    "mask.density": (0.3, {"mask": {"twin_width": None}}),
    "mask.densities": ((0.3, 0.4, 0.5, 0.6), {"mask": {"twin_width": None}}),
    "mask.criterion": ("magnitude", {"mask": DENSITY}),
    "mask.budget": ("erk", {"mask": DENSITY}),
    "mask.rounds": (5, {"mask": SNIP}),
    "mask.examples": (40, {"mask": SNIP}),
    "mask.mode": ("eval", {"mask": SNIP, "model": {"norm": "batch"}}),
    "mask.options": ({"temperature": 1.0}, {"mask": {**DENSITY, "criterion": "grasp"}}),
    "mask.exclude": (("output*",), {"mask": DENSITY}),
    "mask.dense": (("output*",), {"mask": DENSITY}),
    "mask.empty": ("allow", {"mask": {**DENSITY, "density": 0.004}}),
    "mask.shuffle": (True, {"mask": SNIP}),
    "mask.gradual": ({"start": 1, "end": 6, "every": 2}, {"mask": DENSITY}),
    "mask.gradual.start": (0, {"mask": GRADUAL}),
    "mask.gradual.end": (5, {"mask": GRADUAL}),
    "mask.gradual.every": (3, {"mask": GRADUAL}),
    "mask.lottery": ({"round": 1}, {"mask": {"twin_width": None}}),
    "mask.lottery.round": (2, {"mask": LOTTERY}),
    "mask.lottery.fraction": (0.5, {"mask": LOTTERY}),
    "mask.lottery.layerwise": (True, {"mask": LOTTERY}),
    "mask.lottery.rewind_step": (3, {"mask": LOTTERY}),
    "mask.lottery.weights": ("fresh", {"mask": LOTTERY}),
    "mask.inherited": ({"run": OTHER}, {"mask": {"twin_width": None}}),
    "mask.inherited.run": None,  # test_inherited holds it
    "mask.inherited.seed": (7, {"mask": INHERITED}),
    "mask.inherited.weights": ("rewound", {"mask": INHERITED}),
    "mask.inherited.rewind_step": (3, {"mask": {**INHERITED, "inherited": {"run": OTHER, "weights": "rewound"}}}),
    "rewire": ({"rule": "set", "every": 2}, {}),
    "rewire.rule": ("rigl", {"rewire": REWIRE}),
    "rewire.every": (3, {"rewire": REWIRE}),
    "rewire.stop": (0.4, {"rewire": REWIRE}),
    "rewire.fraction": (0.6, {"rewire": REWIRE}),
    "rewire.decay": ("constant", {"rewire": REWIRE}),
    "rewire.replace_step": (False, {"rewire": REWIRE}),
    "rewire.keep_regrown": (False, {"rewire": {**REWIRE, "rule": "rigl", "fraction": 1.0}}),
    "rewire.gradient_norms": (True, {"rewire": REWIRE}),
    "tost": (TOST, {}),
    "tost.neurons": (False, {"tost": {**TOST, "skips": True}, **CONV}),
    "tost.skips": (True, {"tost": TOST, **CONV}),
    "tost.smoothing": (0.2, {"tost": TOST}),
    "tost.until": (2, {"tost": TOST}),
    "tost.shape": ("cosine", {"tost": TOST}),
    "tost.stairs": (2, {"tost": {**TOST, "shape": "step"}}),
    "tost.alpha": (0.5, {"tost": TOST}),
    "tost.beta_max": (4.0, {"tost": TOST}),
    "tost.shortcut": ("conv", {"tost": {"skips": True, "until": 1}, **CONV}),
    "tost.rescale": ({"iterations": 4}, {"tost": TOST}),
    "tost.rescale.iterations": (5, RESCALE),
    "tost.rescale.gamma": (100.0, RESCALE),
    "tost.rescale.scale_lr": (0.1, RESCALE),
    "tost.rescale.bound": (0.999, RESCALE),
    "mask.file": None,  # test_mask_file_runs holds these two
    "mask.digest": None,
    "mask.execution": ("compact", {}),
    "init.scheme": ("glorot", {}),
    "init.distribution": ("uniform", {}),
    "init.fan": ("out", {}),
    "init.fans": ("own", {}),
    "init.seed": (7, {}),
    "init.method": ("fans", {"mask": DENSITY}),
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
    "measure.train_accuracy": (True, {}),
    "measure.activations": (True, {}),
    "measure.eigenvalues": (1, {"train": {"dtype": "float64"}}),
    "seed": (1, {}),
}


def leaves(section: type[Section], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        inner = next((t for t in parts if isinstance(t, type) and issubclass(t, Section)), None)
        if inner is not None:
            found += leaves(inner, f"{prefix}{name}.")
        if inner is not field.annotation:  # a value by itself, or a section that may be left out
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
def test_the_knob_changes_something(knob, small, cache, tmp_path):
    value, needs = KNOBS[knob]
    base = laid_over(small().changes(), needs)
    *path, last = knob.split(".")
    change: dict = {last: value}
    for part in reversed(path):
        change = {part: change}
    before, after = (_everything(_run(c), cache, tmp_path) for c in (base, laid_over(base, change)))
    assert before != after


def _run(content: dict) -> RunSpec:
    inherited = content["mask"].get("inherited")
    if inherited is not None and inherited["run"] == OTHER:
        other = {**content, "mask": DENSITY}
        content = {**content, "mask": {**content["mask"], "inherited": {**inherited, "run": other}}}
    return RunSpec.model_validate(content)


def _everything(spec, cache, folder):
    rows: list = []
    chain = with_predecessors([spec])
    where = Surroundings(checkpoints=folder, legacy=legacy(chain))
    for before in chain[:-1]:
        assert execute(before, where, cache).status == "finished"
    result = execute(spec, where, cache, rows.extend)
    assert result.status == "finished", result.error
    return result.digest, result.execution, result.stacked, sorted(rows)
