"""From a specification to the network, its masks and its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from sparseflow.core import (
    BadSpec,
    BadValue,
    Masks,
    ModelMasks,
    Shapes,
    other_parameters,
    stream_seed,
    weight_shapes,
    weight_values,
)
from sparseflow.init import draw_, draw_active_, from_twin_
from sparseflow.masks import matching_rules, random_masks
from sparseflow.models import check_answer, is_imported, make_imported, materialise, models, sketch
from sparseflow.sparse import choose, compact
from sparseflow.study.finding import Source, budget_of, find_masks, weights_in_question
from sparseflow.study.lineage import draws_weights, predecessor
from sparseflow.study.sections import ModelSpec
from sparseflow.study.spec import RunSpec
from sparseflow.train import Plan, make_optimizer, make_schedule, obstacle, optimizers, parameter_groups, smoothed


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


def layer_shapes(spec: RunSpec, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> Shapes:
    """Weight name -> dense shape of the specified model, at another width if one is given."""
    return weight_shapes(outline(spec, input_shape, classes, width))


def module_names(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> list[str]:
    """Of the specified model, in its order."""
    return [name for name, _ in outline(spec, input_shape, classes).named_modules()]


def total_weights(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> int:
    """Weights of the specified model, active or not: what a density is a part of."""
    return sum(shape.numel() for shape in layer_shapes(spec, input_shape, classes).values())


def masked_sizes(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """Weight name -> size, of the weights that get a mask, in the model's order: what `mask.densities` are of."""
    shapes, dense = weights_in_question(spec, outline(spec, input_shape, classes))
    return {name: shape.numel() for name, shape in shapes.items() if name not in dense}


def active_per_layer(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """Weight name -> active weights, without building the network, for masks that are drawn at random.

    Raises:
        BadSpec: if the twin is wider than the model.
    """
    model = outline(spec, input_shape, classes)
    counts = _budget(spec, model, input_shape, classes)
    return {name: counts.get(name, shape.numel()) for name, shape in weight_shapes(model).items()}


def active_at_the_end(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> int | None:
    """Active weights of the whole network at the end of training; None where only the runs before it, or a file, tell.

    Raises:
        BadSpec: if the budget cannot be had from this network.
    """
    mask = spec.mask
    if mask.inherited is not None:
        before = predecessor(spec)
        return None if before is None else active_at_the_end(before, input_shape, classes)
    if mask.file is not None or (mask.lottery is not None and mask.lottery.round > 0 and mask.density is None):
        return None
    if mask.density is None and mask.densities is None:
        return sum(active_per_layer(spec, input_shape, classes).values())
    model = outline(spec, input_shape, classes)
    shapes, dense = weights_in_question(spec, model)
    budget = budget_of(spec, shapes, dense)
    outside = sum(shape.numel() for name, shape in weight_shapes(model).items() if name not in shapes)
    return outside + (budget if isinstance(budget, int) else sum(budget.values()))


def stacks(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> bool:
    """Whether a run is trained stacked: a matter of its specification alone, never of who else is there to share."""
    mask = spec.mask
    if (
        spec.train.stack == "never"
        or is_imported(spec.model.name)
        or mask.execution == "compact"
        or mask.lottery is not None
        or mask.inherited is not None
        or mask.gradual is not None
        or spec.rewire is not None
        or spec.tost is not None
    ):
        return False
    if not optimizers.entry(spec.optimizer.name).facts.get("elementwise", False):
        return False
    size = _stackable_size(spec.model, input_shape, classes)
    return size is not None and size <= (STACKED_SPARSE if mask.sparse else STACKED_DENSE)


@lru_cache(maxsize=256)
def _stackable_size(model: ModelSpec, input_shape: tuple[int, ...], classes: int) -> int | None:
    """Weights of a network that is trained stacked where it is small, masked ones counted; None of any other."""
    if not models.entry(model.name).facts.get("stacked", False):
        return None
    sketched = outline(RunSpec(model=model), input_shape, classes)
    return None if obstacle(sketched) else sum(shape.numel() for shape in weight_shapes(sketched).values())


def build(
    spec: RunSpec,
    input_shape: tuple[int, ...],
    classes: int,
    device: torch.device | str = "cpu",
    source: Source | None = None,
) -> Network:
    """Make, mask, convert and initialise the network of a run; everything random follows from `spec.seed`.

    Args:
        source: what a mask that is not drawn at random is found from.

    Raises:
        BadSpec: if the mask cannot be had from this network.
        BadValue: if the user's own network cannot be had, or does not answer as it must.
    """
    model = outline(spec, input_shape, classes)
    if is_imported(spec.model.name):
        check_answer(spec.model.name, model, input_shape, classes)
    shapes = weight_shapes(model)
    stacked = stacks(spec, input_shape, classes)
    execution = "masked" if stacked or spec.mask.gradual is not None else spec.mask.execution
    dtype = getattr(torch, spec.train.dtype)
    if (spec.mask.sparse and not spec.mask.drawn) or spec.mask.lottery is not None:
        if source is None:
            raise BadValue("the mask of this run is found in its network: build needs a source")
        materialise(model, device, dtype)
        draw_active_(model, {}, spec.init.scheme_object(), seed=_start_seed(spec))
        found = find_masks(spec, model, source)
        counts = {name: int(mask.count_nonzero()) for name, mask in found.items()}
        kept = _convert(model, counts, choose(shapes, counts, execution), found.__getitem__, device)
        if spec.init.method != "dense" and not _keeps_values(spec):
            draw_(model, kept, spec.init.method, spec.init.scheme_object(), seed=_start_seed(spec))
    else:
        counts = _budget(spec, model, input_shape, classes)
        # One after the other: all masks at once outweigh a compact network.
        kept = _convert(
            model,
            counts,
            choose(shapes, counts, execution),
            lambda name: random_masks(shapes, {name: counts[name]}, spec.seed)[name],
            device,
        )
        materialise(model, device, dtype)
        _draw_active(spec, model, ModelMasks(model, kept, counts), input_shape, classes)
    masks = ModelMasks(model, kept, counts)
    active = {name: counts.get(name, shape.numel()) for name, shape in shapes.items()}
    others = sum(p.numel() for p in other_parameters(model).values())
    how = {name: "masked" if name in kept else "compact" for name in counts}
    return Network(model, masks, how, active, others, stacked)


def _convert(
    model: nn.Module,
    names: Iterable[str],
    wanted: Mapping[str, str],
    mask_of: Callable[[str], Tensor],
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Make the layers compact that are to be and can be; the masks of the others."""
    kept = {}
    for name in names:
        mask = mask_of(name).to(device)
        if wanted[name] == "masked" or not compact(model, {name: mask}).compacted:
            kept[name] = mask
    return kept


def _start_seed(spec: RunSpec) -> int:
    """Of the initial weights; fresh ones are drawn apart from those that the run before began with."""
    seed = spec.seed if spec.init.seed is None else spec.init.seed
    fresh = predecessor(spec) is not None and draws_weights(spec)
    return stream_seed(seed, "fresh") if fresh else seed


def _keeps_values(spec: RunSpec) -> bool:
    """Whether the values of the network that the mask was found in are those to train."""
    return spec.mask.gradual is not None or not draws_weights(spec)


def _draw_active(spec: RunSpec, model: nn.Module, masks: Masks, input_shape: tuple[int, ...], classes: int) -> None:
    scheme = spec.init.scheme_object()
    if spec.mask.twin_width is not None and spec.init.fans != "own":
        twin = layer_shapes(spec, input_shape, classes, spec.mask.twin_width)
        from_twin_(model, masks, twin, scheme, seed=_start_seed(spec))
    elif spec.init.method != "dense":
        draw_(model, masks, spec.init.method, scheme, seed=_start_seed(spec))
    else:
        draw_active_(model, masks, scheme, seed=_start_seed(spec))


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
        crop=spec.data.crop,
        l1=spec.optimizer.l1,
        points=spec.measure.points,
        eval_every=spec.train.eval_every,
        schedule=make if moving else None,
        training_loss=smoothed(spec.tost.smoothing) if spec.tost is not None and spec.tost.smoothing else None,
    )


def outline(spec: RunSpec, input_shape: tuple[int, ...], classes: int, width: int | None = None) -> nn.Module:
    """The specified network before its weights are drawn, at another width if one is given.

    Of the catalog it is a sketch. One's own has memory and all its values, as its factory makes it: what its code
    does to a tensor that has none is not known.

    Raises:
        BadValue: if the model cannot be had, or not for such data.
    """
    name, told = spec.model.name, spec.model.arguments()
    if width is not None:
        told["width"] = width
    if not is_imported(name):
        return sketch(name, input_shape, classes, **told)
    return make_imported(name, told, seed=_start_seed(spec), input_shape=input_shape, classes=classes)


def check_own(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> None:
    """Raise unless the run's own model, if it has one, can be made, answers as it must and can have the run's mask.

    Raises:
        BadValue, BadSpec: naming the model and what would have worked.
    """
    if not is_imported(spec.model.name):
        return
    model = outline(spec, input_shape, classes)
    check_answer(spec.model.name, model, input_shape, classes)
    if not spec.mask.sparse and spec.mask.lottery is None:
        return
    if not weight_shapes(model):
        raise BadSpec([f"mask: {spec.model.name} has no layer that can be masked, no parameter of two dimensions"])
    if spec.mask.twin_width is not None:
        _budget(spec, model, input_shape, classes)


def _budget(spec: RunSpec, model: nn.Module, input_shape: tuple[int, ...], classes: int) -> dict[str, int]:
    """Active weights of each layer that has a mask, where no network is needed to tell."""
    if spec.mask.twin_width is not None:
        twin = layer_shapes(spec, input_shape, classes, spec.mask.twin_width)
        try:
            return matching_rules[spec.mask.matching](weight_shapes(model), twin)
        except BadValue as error:
            raise BadSpec([f"mask.twin_width: {error}"]) from None
    if not spec.mask.drawn:
        return {}
    found = budget_of(spec, *weights_in_question(spec, model))
    assert not isinstance(found, int), "a drawn mask has a number for each layer"
    return found
