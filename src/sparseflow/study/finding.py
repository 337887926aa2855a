"""From a specification to masks: those drawn without a network, and those found in one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadSpec, BadValue, Batch, Loss, Masks, Shapes, SparseflowError, state_digest, weight_shapes
from sparseflow.masks import (
    Budget,
    budgets,
    count,
    load,
    matching,
    misfits,
    next_round,
    own_options,
    prunable,
    prune,
    shapes_of,
    shuffled,
    without,
)
from sparseflow.study.lineage import predecessor, rewound_to
from sparseflow.study.spec import RunSpec
from sparseflow.train import GradualMagnitude, Rule, checkpoint


@dataclass(frozen=True)
class Source:
    """What masks may be found from, besides the specification.

    Attributes:
        batches: gives the scoring batches.
        final: run name -> file of its kept network.
        rewind: run name, step -> file of the weights to go back to.
        file: where a file is that the specification names.
    """

    batches: Callable[[], list[Batch]]
    loss: Loss
    final: Callable[[str], Path | None] = lambda name: None
    rewind: Callable[[str, int], Path | None] = lambda name, step: None
    file: Callable[[str], Path] = Path


def weights_in_question(spec: RunSpec, model: nn.Module) -> tuple[Shapes, set[str]]:
    """Weight name -> shape of those that the mask's density speaks of, and the names of those that stay dense."""
    try:
        weights = prunable(model, exclude=spec.mask.exclude or None)
        kept = matching(model, weights, spec.mask.dense or None, "dense")
    except BadValue as error:
        raise BadSpec([f"mask.{error}"]) from None
    return {name: weight.shape for name, weight in weights.items()}, kept


def budget_of(spec: RunSpec, shapes: Shapes, dense: Collection[str]) -> Budget:
    """Active weights at the end, of each layer or of all together.

    Raises:
        BadSpec: if the budget cannot be had from these layers.
    """
    mask = spec.mask
    try:
        own = own_options(budgets[mask.budget_name], mask.options)
        return count(mask.budget_name, shapes, mask.asked, dense, empty=mask.empty, **own)
    except BadValue as error:
        raise BadSpec([f"mask: {error}"]) from None


def rule_for(spec: RunSpec, model: nn.Module) -> Callable[[int], Rule | None]:
    """What changes the masks along a training of so many steps."""
    gradual, rewire = spec.mask.gradual, spec.rewire

    def rule(steps: int) -> Rule | None:
        if gradual is not None:
            shapes, dense = weights_in_question(spec, model)
            final = budget_of(spec, shapes, dense)
            return GradualMagnitude(gradual.schedule(), final, frozenset(dense), spec.mask.empty, spec.seed)
        return None if rewire is None else rewire.engine(steps, spec.seed)

    return rule


def find_masks(spec: RunSpec, model: nn.Module, source: Source) -> dict[str, Tensor]:
    """The masks that training starts with (none in round 0 of a lottery), found in the dense network as it was drawn.

    Where weights are rewound, it also puts those into the model.

    Raises:
        BadSpec: if the mask cannot be had from this network.
        SparseflowError: if the run before it, or its kept network, is missing.
    """
    mask = spec.mask
    if mask.gradual is not None:
        shapes, _ = weights_in_question(spec, model)
        return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    if mask.file is not None:
        found = _read(source.file(mask.file), mask.digest, model)
    elif mask.inherited is not None:
        found = _inherited(spec, model, source)
    else:
        found = _ticket(spec, model, source) if mask.lottery is not None else _pruned(spec, model, source)
    if (start := rewound_to(spec)) is not None:
        run, step = start
        what = f"the weights of step {step} of the run {run.name}"
        kept = _kept(source.rewind(run.name, step), what)
        checkpoint.load_fitting(model, kept["state_dict"], f"the file of {what}")
    return shuffled(found, spec.seed) if mask.shuffle else found


def _read(path: Path, digest: str | None, model: nn.Module) -> dict[str, Tensor]:
    found, _ = load(path, model)
    if digest is not None and masks_digest(found) != digest:
        raise BadSpec([f"mask.file: {path} has other masks (digest {masks_digest(found)}) than the run was named for"])
    return found


def masks_digest(masks: Masks) -> str:
    """16 hex digits that name masks."""
    return state_digest(masks)[:16]


def _pruned(spec: RunSpec, model: nn.Module, source: Source) -> dict[str, Tensor]:
    mask = spec.mask
    options: dict[str, Any] = dict(mask.options)
    try:
        return prune(
            model,
            mask.criterion,
            mask.asked,
            budget=mask.budget_name,
            batches=source.batches(),
            loss=source.loss,
            rounds=mask.rounds,
            seed=spec.seed,
            exclude=mask.exclude or None,
            dense=mask.dense or None,
            mode=mask.mode,
            empty=mask.empty,
            **options,
        )
    except BadValue as error:
        raise BadSpec([f"mask: {error}"]) from None


def _inherited(spec: RunSpec, model: nn.Module, source: Source) -> dict[str, Tensor]:
    before = predecessor(spec)
    assert before is not None
    kept = _kept(source.final(before.name), f"the network of the run {before.name}")
    found = kept["masks"]
    known = weight_shapes(model)
    if wrong := misfits(shapes_of(found), {name: shape for name, shape in known.items() if name in found}):
        raise BadSpec([f"mask.inherited.run: masks of another model: {'; '.join(wrong)}"])
    if spec.mask.inherited is not None and spec.mask.inherited.weights == "final":
        checkpoint.load_fitting(model, kept["state_dict"], f"the network of the run {before.name}")
    return {name: found[name] for name in known if name in found}


def _ticket(spec: RunSpec, model: nn.Module, source: Source) -> dict[str, Tensor]:
    lottery, before = spec.mask.lottery, predecessor(spec)
    assert lottery is not None
    shapes, dense = weights_in_question(spec, model)
    if before is None:
        return {}
    kept = _kept(source.final(before.name), f"the network of round {lottery.round - 1} of the lottery")
    masks = {name: kept["masks"].get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in shapes.items()}
    ranked = {name: mask for name, mask in masks.items() if name not in dense}
    found = next_round(
        kept["state_dict"],
        ranked,
        lottery.fraction,
        target=_target(spec, shapes, dense),
        layerwise=lottery.layerwise,
        last=spec.mask.density is not None,
        empty=spec.mask.empty,
        seed=spec.seed,
    )
    return masks | found


def _target(spec: RunSpec, shapes: Shapes, dense: Collection[str]) -> Budget:
    """Where the rounds end, for the layers that are pruned."""
    lottery = spec.mask.lottery
    assert lottery is not None
    if spec.mask.density is None:  # a round on the way, which the target does not reach
        rest = [name for name in shapes if name not in dense]
        return dict.fromkeys(rest, 1) if lottery.layerwise else len(rest)
    return without(budget_of(spec, shapes, dense), shapes, dense)


def _kept(path: Path | None, what: str) -> dict[str, Any]:
    content = None if path is None or not path.is_file() else checkpoint.load(path)
    if content is None:
        raise SparseflowError(
            f"this run begins with {what}, which should be in the output folder and is not: that run failed, or its "
            "file was removed"
        )
    return content
