"""Networks on the way of a training that has ended: studies keep the last one, so the training is done again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseflow.core import BadData, Batch, Masks, Metric, SparseflowError, replacing
from sparseflow.models import materialise
from sparseflow.study import DataCache, Finished, Loaded, RunSpec, Surroundings, build
from sparseflow.study.build import optimizer_for, outline, plan_for
from sparseflow.study.finding import rule_for
from sparseflow.study.lineage import rewound_to
from sparseflow.study.run import source_for
from sparseflow.study.surroundings import keep_network
from sparseflow.study.tweaks import ghosts_for, rescale_start
from sparseflow.train import Trainer, checkpoint


@dataclass(frozen=True)
class Wanted:
    """Moments of a training.

    Attributes:
        updates: the first change of masks at or after each of these parts of the training, just before and after it.
        parts: after these parts of the training, each in (0, 1).
    """

    updates: Sequence[float] = ()
    parts: Sequence[float] = ()


@dataclass(frozen=True)
class Kept:
    """A network that was kept on the way.

    Attributes:
        moment: "before" or "after" a change of masks, or "" for a step.
    """

    step: int
    moment: str
    path: Path


def on_the_way(run: Finished, wanted: Wanted, cache: DataCache, surroundings: Surroundings, folder: Path) -> list[Kept]:
    """Train a finished run again, as far as the last moment asked for, and keep its networks of these moments.

    The training is the run's own, step by step, by the same code on the same data; runs that were trained stacked are
    trained alone here, which can change last digits. What the folder has already is not trained again.

    Args:
        surroundings: `checkpoints` is not looked at: those of the run's own study are.

    Raises:
        SparseflowError: if what the run begins with was not kept, it diverges on the way, or a moment lies before the
            step that it goes on from.
        BadData: if the data are not those that it was trained on.
    """
    spec = run.spec
    data = cache.prepared(spec)
    if data.digest != run.data_digest:
        raise BadData(f"{run.label} was trained on other data than {spec.data.name!r} now is")
    key: dict[str, Any] = {
        "run": spec.name,
        "data": data.digest,
        "updates": list(wanted.updates),
        "parts": list(wanted.parts),
    }
    place = folder / "networks" / spec.name
    index = place / "kept.json"
    if (known := _known(index, key)) is not None:
        return known
    place.mkdir(parents=True, exist_ok=True)
    where = replace(surroundings, checkpoints=run.folder / "checkpoints")
    network = build(spec, data.input_shape, data.classes, surroundings.device, source_for(spec, data, where))
    rescale_start(spec, network, data, None)
    ghosts = ghosts_for(spec, network.model, data)
    begun = rewound_to(spec)
    keeper = _Keeper(spec, place)
    trainer = Trainer(
        network.model,
        network.masks,
        optimizer_for(spec, network.model),
        data,
        plan_for(spec),
        should_stop=lambda: keeper.complete,
        start_step=0 if begun is None else begun[1],
        rule=rule_for(spec, network.model),
        companions=ghosts,
        probe_change=keeper.at_update if wanted.updates else None,
    )
    keeper.trainer = trainer
    keeper.updates = [part * trainer.total_steps for part in sorted(wanted.updates)]
    keeper.steps = {step_after(part, trainer.total_steps) for part in wanted.parts}
    if passed := [step for step in sorted(keeper.steps) if step <= trainer.step]:
        raise SparseflowError(f"{run.label} begins at step {trainer.step}; it has no step {passed[0]} of its own")
    trainer.at_steps = dict.fromkeys(keeper.steps, keeper.at_step)
    outcome = trainer.run()
    if outcome.status == "diverged":
        raise SparseflowError(f"{run.label} diverged when it was trained again")
    kept = sorted(keeper.kept, key=lambda one: (one.step, one.moment == "after"))
    with replacing(index) as aside:
        listed = [[one.step, one.moment, one.path.name] for one in kept]
        aside.write_text(json.dumps({"of": key, "kept": listed}), encoding="utf-8")
    return kept


def step_after(part: float, total: int) -> int:
    """The step that a part of a training of so many steps ends with."""
    return min(total, max(1, round(part * total)))


def total_steps(run: Finished, cache: DataCache) -> int:
    """Optimiser steps of a whole training."""
    plan = plan_for(run.spec)
    return plan.epochs * plan.batches_per_epoch(len(cache.prepared(run.spec).train))


def _known(index: Path, key: Mapping[str, Any]) -> list[Kept] | None:
    if not index.is_file():
        return None
    content = json.loads(index.read_text(encoding="utf-8"))
    if content["of"] != key:
        return None
    return [Kept(step, moment, index.parent / name) for step, moment, name in content["kept"]]


@dataclass
class _Keeper:
    """Writes networks as a training comes by."""

    spec: RunSpec
    place: Path
    updates: list[float] = field(default_factory=list)
    steps: set[int] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)
    trainer: Trainer | None = None
    _within: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is left to keep, so that the training may end."""
        return not self.updates and not self.steps

    def at_step(self) -> None:
        assert self.trainer is not None
        self.steps.discard(self.trainer.step)
        self._keep(self.trainer.step, "", self.trainer.model, self.trainer.sparse.masks)

    def at_update(self, model: nn.Module, masks: Masks, batch: Batch) -> dict[Metric, float]:
        """Called just before masks change, and again just after; nothing is measured."""
        assert self.trainer is not None
        step = self.trainer.step + 1  # it is counted when the optimiser's step is over
        if self._within:
            self._keep(step, "after", model, masks)
            self._within = False
        elif self.updates and step >= self.updates[0]:
            self.updates = [due for due in self.updates if due > step]
            self._keep(step, "before", model, masks)
            self._within = True
        return {}

    def _keep(self, step: int, moment: str, model: nn.Module, masks: Masks) -> None:
        path = self.place / f"step{step}{moment}.pt"
        keep_network(model, masks, self.spec, path)
        self.kept.append(Kept(step, moment, path))


def load(run: Finished, kept: Kept, label: str, cache: DataCache, device: str) -> Loaded:
    """A network that was kept on the way, as `reload` has that of the end."""
    data = cache.prepared(run.spec)
    content = checkpoint.load(kept.path, device)
    if content is None:
        raise SparseflowError(
            f"{kept.path} is damaged; remove the folder that it is in, and the same command makes it again"
        )
    model = outline(run.spec, data.input_shape, data.classes)
    materialise(model, device, getattr(torch, run.spec.train.dtype))
    checkpoint.load_fitting(model, content["state_dict"], label)
    model.eval()
    masks = {name: mask.to(device) for name, mask in content["masks"].items()}
    return Loaded(replace(run, label=label, at=kept.step), model, masks, data)
