"""From a specification to the network, its masks and its optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sparseflow.core import BadSpec, BadValue, Shapes, other_parameters, weight_shapes, weight_values
from sparseflow.init import draw_active_, from_twin_
from sparseflow.masks import matching_rules, random_masks, uniform
from sparseflow.models import materialise, sketch
from sparseflow.sparse import choose, compact
from sparseflow.study.spec import RunSpec
from sparseflow.train import Plan, make_optimizer, make_schedule, parameter_groups


@dataclass(frozen=True)
class Network:
    """A network ready to train.

    Attributes:
        masks: of every sparse layer, masked or compact.
        execution: weight name -> "masked" or "compact", for every sparse layer.
        active: weight name -> active weights.
        others: number of parameters that are not weights (normalisation, activations, biases).
    """

    model: nn.Module
    masks: dict[str, torch.Tensor]
    execution: dict[str, str]
    active: dict[str, int]
    others: int


def maximum_width(input_size: int) -> int:
    """N_MW = n + 4 for n inputs (001 sec. 3.2.1, after Lu et al. 2017)."""
    return input_size + 4


def layer_shapes(spec: RunSpec, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> Shapes:
    """Weight name -> dense shape of the specified model, at another width if one is given."""
    return weight_shapes(_sketch(spec, input_shape, classes, width))


def active_per_layer(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """Weight name -> active weights, without building the network.

    Raises:
        BadSpec: if the twin is wider than the model.
    """
    shapes = layer_shapes(spec, input_shape, classes)
    counts = _budget(spec, shapes, input_shape, classes)
    return {name: counts.get(name, shape.numel()) for name, shape in shapes.items()}


def build(spec: RunSpec, input_shape: tuple[int, ...], classes: int, device: torch.device | str = "cpu") -> Network:
    """Make, mask, convert and initialise the network of a run; everything random follows from `spec.seed`."""
    model = _sketch(spec, input_shape, classes)
    shapes = weight_shapes(model)
    counts = _budget(spec, shapes, input_shape, classes)
    masks = {name: m.to(device) for name, m in random_masks(shapes, counts, spec.seed).items()}
    wanted = choose(shapes, counts, spec.mask.execution)
    conversion = compact(model, masks, only=[name for name, how in wanted.items() if how == "compact"])
    execution = {name: "compact" if name in conversion.compacted else "masked" for name in masks}
    materialise(conversion.model, device, getattr(torch, spec.train.dtype))
    twin = spec.mask.twin_width is not None and spec.init.fans != "own"
    scheme = spec.init.scheme_object()
    if twin:
        shapes_of_twin = layer_shapes(spec, input_shape, classes, spec.mask.twin_width)
        from_twin_(model, masks, shapes_of_twin, scheme, seed=spec.seed)
    else:
        draw_active_(model, masks, scheme, seed=spec.seed)
    active = {name: counts.get(name, shape.numel()) for name, shape in shapes.items()}
    others = sum(p.numel() for p in other_parameters(model).values())
    return Network(model, masks, execution, active, others)


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
