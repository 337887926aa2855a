"""The presets of 004's arms: what they make, and that every arm of them runs at any scale."""

from __future__ import annotations

import numpy as np
import pytest

from sparseflow.core import weight_shapes
from sparseflow.models import sketch
from sparseflow.study import (
    ArmsSpec,
    DataCache,
    FactsBook,
    Planned,
    Pool,
    Store,
    Surroundings,
    active_at_the_end,
    arms_of,
    assign,
    drive,
    first_runs,
    read_preset,
    validate,
    with_predecessors,
)
from watchers import Quiet

MNIST, IMAGENET = ((1, 28, 28), 10), ((3, 224, 224), 1000)
PRESETS = {
    "methods-lenet": (MNIST, 0.05),
    "methods-mlp": (MNIST, 0.02),
    "methods-vgg16": (IMAGENET, 0.2),
    "methods-resnet50": (IMAGENET, 0.2),
}
TABLE = [
    (method, init) for method in ("scratch", "SET", "RigL", "RigL inverted") for init in ("original", "Liu", "ours")
]


def spec_of(name, *sets):
    return validate(ArmsSpec, {k: v for k, v in assign(read_preset(name), sets).items() if k != "kind"})


@pytest.mark.parametrize("name", PRESETS)
def test_the_arms_are_those_of_the_paper(name):
    (shape, classes), density = PRESETS[name]
    arms = {arm.name: arm.points[0].spec for arm in arms_of(spec_of(name))}
    families = ("Glorot", "He") if name == "methods-lenet" else ("sparse",)
    methods = {f"{family} {method} {init}": (method, init) for family in families for method, init in TABLE}
    assert list(arms) == ["baseline", "small dense", "pruned", "lottery", *methods]
    model = sketch(arms["baseline"].model.name, shape, classes, **arms["baseline"].model.arguments())
    whole = sum(p.numel() for p in model.parameters())
    weights = sum(s.numel() for s in weight_shapes(model).values())
    active = {
        active_at_the_end(spec, shape, classes) for arm, spec in arms.items() if arm in (*methods, "pruned", "lottery")
    }
    assert max(active) - min(active) <= len(weight_shapes(model))  # a rounding in each layer at most
    assert min(active) == pytest.approx(density * weights, rel=2e-3)
    small = arms["small dense"].model
    other = sum(p.numel() for p in sketch(small.name, shape, classes, **small.arguments()).parameters())
    assert other == pytest.approx(max(active) + whole - weights, rel=0.04)
    for arm, (method, init) in methods.items():
        spec = arms[arm]
        rule = {"scratch": None, "SET": "set", "RigL": "rigl", "RigL inverted": "rigl-inverted"}[method]
        assert (spec.rewire.rule if spec.rewire else None) == rule
        assert spec.init.method == {"original": "dense", "Liu": "liu", "ours": "fans"}[init]
        from_pruned = with_predecessors([spec])[0] == arms["pruned"]
        assert from_pruned == (shape == MNIST[0])  # 004 B.2: on MNIST all masks are those that pruning found


TINY = [
    "seeds=1", "base.train={epochs: 2, batch_size: 20}", "base.measure={points: 2, probe_size: 20}",
    "arms.pruned.mask.gradual={start: 2, end: 4, every: 1}",
]  # fmt: skip
OF = {
    "methods-lenet": ["base.data.val_fraction=0.25"],
    "methods-mlp": ["base.data.val_fraction=0.25"],
    "methods-vgg16": ["base.data.crop=pad", "base.model.width=2", "arms.small dense.model.width=1"],
    "methods-resnet50": [
        "base.data.crop=pad", "base.model={name: resnet-50, width: 2}", "arms.small dense.model.width=1",
        "arms.lottery.mask.inherited.rewind_step=1",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_arm_runs_on_other_data_at_a_small_scale(name, tmp_path):
    draw = np.random.default_rng(0)
    side = 32 if name == "methods-vgg16" else 8
    x, x_test = (draw.integers(0, 256, (n, 3, side, side)).astype(np.uint8) for n in (80, 20))
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(80) % 4, x_test=x_test, y_test=np.arange(20) % 4)
    families = ("Glorot", "He") if name == "methods-lenet" else ("sparse",)
    rules = [
        f"arms.{family}.cross.method.{rule}.rewire" for family in families for rule in ("SET", "RigL", "RigL inverted")
    ]
    often = [f"{rule}.{field}" for rule in rules for field in ("every=2", "stop=1.0", "fraction=0.9")]
    spec = spec_of(name, *TINY, *OF[name], *often, f"base.data.name={tmp_path / 'data.npz'}")
    arms = arms_of(spec)
    where = Surroundings(checkpoints=tmp_path / "out" / "checkpoints")
    facts = FactsBook.of((point.spec for arm in arms for point in arm.points), DataCache(where))
    study = (spec.study_name, "arms", {"spec": spec.changes(), "facts": facts.dump()})
    tally = drive(Planned(first_runs(spec, arms)), tmp_path / "out", where, Pool(2), Quiet(), study=study, facts=facts)
    assert not tally.failed
    store = Store(tmp_path / "out")
    results = store.results()
    store.close()
    ends = {arm.name: results[arm.points[0].at(0).name] for arm in arms}
    finished = [result["digest"] for result in ends.values() if result["status"] == "finished"]
    assert len(finished) >= len(ends) - 2  # a large rate may diverge
    assert len(set(finished)) == len(finished)  # no two arms are the same training
