"""From a specification to the network, its masks and its optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from sparseflow.core import BadSpec, BadValue, Masks, ModelMasks, Shapes, other_parameters, weight_shapes, weight_values
from sparseflow.init import draw_active_, from_twin_
from sparseflow.masks import matching_rules, random_masks, uniform
from sparseflow.models import materialise, sketch
from sparseflow.sparse import choose, compact
from sparseflow.study.spec import ModelSpec, RunSpec
from sparseflow.train import Plan, make_optimizer, make_schedule, obstacle, optimizers, parameter_groups


@dataclass(frozen=True)
class Network:
    """A network ready to train.

    Attributes:
        masks: of every sparse layer, masked or compact.
        execution: weight name -> "masked" or "compact", for every sparse layer.
        active: weight name -> active weights.
        others: number of parameters that are not weights (normalisation, activations, biases).
        stacked: trained by the stacked program, alone or with others.
    """

    model: nn.Module
    masks: Masks
    execution: dict[str, str]
    active: dict[str, int]
    others: int
    stacked: bool


STACKED_SPARSE, STACKED_DENSE = 100_000, 200_000
"""Networks of at most this many weights (masked ones counted) are trained stacked.

Measured for steps of batch 128 (one AVX-512 thread, 64 and 784 inputs): stacked masked training of a sparse network
beats its compact form up to about the first, and for a dense one little is left to gain beyond the second."""


def maximum_width(input_size: int) -> int:
    """N_MW = n + 4 for n inputs (001 sec. 3.2.1, after Lu et al. 2017)."""
    return input_size + 4


def layer_shapes(spec: RunSpec, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> Shapes:
    """Weight name -> dense shape of the specified model, at another width if one is given."""
    return weight_shapes(_sketch(spec, input_shape, classes, width))


def total_weights(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> int:
    """Weights of the specified model, active or not: what a density is a part of."""
    return sum(shape.numel() for shape in layer_shapes(spec, input_shape, classes).values())


def active_per_layer(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """Weight name -> active weights, without building the network.

    Raises:
        BadSpec: if the twin is wider than the model.
    """
    shapes = layer_shapes(spec, input_shape, classes)
    counts = _budget(spec, shapes, input_shape, classes)
    return {name: counts.get(name, shape.numel()) for name, shape in shapes.items()}


def stacks(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> bool:
    """Whether a run is trained stacked: a matter of its specification alone, never of who else is there to share."""
    if spec.train.stack == "never" or spec.mask.execution == "compact":
        return False
    if not optimizers.entry(spec.optimizer.name).facts.get("elementwise", False):
        return False
    size = _stackable_size(spec.model, input_shape, classes)
    return size is not None and size <= (STACKED_SPARSE if spec.mask.sparse else STACKED_DENSE)


@lru_cache(maxsize=256)
def _stackable_size(model: ModelSpec, input_shape: tuple[int, ...], classes: int) -> int | None:
    """Weights of a network that has a stacked form, masked ones counted; None if it has none."""
    sketched = _sketch(RunSpec(model=model), input_shape, classes)
    return None if obstacle(sketched) else sum(shape.numel() for shape in weight_shapes(sketched).values())


def build(spec: RunSpec, input_shape: tuple[int, ...], classes: int, device: torch.device | str = "cpu") -> Network:
    """Make, mask, convert and initialise the network of a run; everything random follows from `spec.seed`."""
    model = _sketch(spec, input_shape, classes)
    shapes = weight_shapes(model)
    counts = _budget(spec, shapes, input_shape, classes)
    stacked = stacks(spec, input_shape, classes)
    wanted = choose(shapes, counts, "masked" if stacked else spec.mask.execution)
    kept = {}
    for name, count in counts.items():  # one after the other: all masks at once outweigh a compact network
        mask = random_masks(shapes, {name: count}, spec.seed)[name].to(device)
        if wanted[name] == "masked" or not compact(model, {name: mask}).compacted:
            kept[name] = mask
    execution = {name: "masked" if name in kept else "compact" for name in counts}
    materialise(model, device, getattr(torch, spec.train.dtype))
    masks = ModelMasks(model, kept, counts)
    twin = spec.mask.twin_width is not None and spec.init.fans != "own"
    scheme = spec.init.scheme_object()
    if twin:
        shapes_of_twin = layer_shapes(spec, input_shape, classes, spec.mask.twin_width)
        from_twin_(model, masks, shapes_of_twin, scheme, seed=spec.seed)
    else:
        draw_active_(model, masks, scheme, seed=spec.seed)
    active = {name: counts.get(name, shape.numel()) for name, shape in shapes.items()}
    others = sum(p.numel() for p in other_parameters(model).values())
    return Network(model, masks, execution, active, others, stacked)


def optimizer_for(spec: RunSpec, model: nn.Module) -> torch.optim.Optimizer:
    """The run's optimiser over the model's parameters, active values of compact layers among them."""
    o = spec.optimizer
    groups = parameter_groups(
        weight_values(model).values(), other_parameters(model).values(), decay_others=o.decay_others
    )
    return make_optimizer(
        o.name, groups, lr=o.lr, weight_decay=o.weight_decay, implementation=o.implementation, **o.options()
    )


def plan_for(spec: RunSpec) -> Plan:
    schedule = spec.optimizer.schedule
    moving = schedule.name != "constant" or schedule.warmup_epochs > 0
    make = partial(make_schedule, schedule.name, warmup_epochs=schedule.warmup_epochs, **schedule.options())
    return Plan(
        epochs=spec.train.epochs,
        batch_size=spec.train.batch_size,
        seed=spec.seed,
        augment=spec.data.augment,
        l1=spec.optimizer.l1,
        points=spec.measure.points,
        eval_every=spec.train.eval_every,
        schedule=make if moving else None,
    )


def _sketch(spec: RunSpec, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> nn.Module:
    options: dict[str, Any] = spec.model.model_dump(exclude={"name"})
    options["width"] = width or spec.model.width or maximum_width(int(torch.Size(input_shape).numel()))
    return sketch(spec.model.name, input_shape, classes, **options)


def _budget(spec: RunSpec, shapes: Shapes, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    if spec.mask.density is not None:
        return uniform(shapes, spec.mask.density)
    if spec.mask.twin_width is None:
        return {}
    twin = layer_shapes(spec, input_shape, classes, spec.mask.twin_width)
    try:
        return matching_rules[spec.mask.matching](shapes, twin)
    except BadValue as error:
        raise BadSpec([f"mask.twin_width: {error}"]) from None
