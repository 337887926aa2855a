"""The networks whose training steps are timed, in every execution, and a step of them as a closure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.bench.rivals import Missing, forms
from sparseflow.core import BadValue, Masks, check_fraction, check_positive, stream, weight_shapes
from sparseflow.init import draw_active_
from sparseflow.masks import random_masks, uniform
from sparseflow.models import materialise, maximum_width, sketch
from sparseflow.sparse import compact
from sparseflow.study import RunSpec, build, optimizer_for, validate
from sparseflow.train import Sparse, make_optimizer, parameter_groups

Step = Callable[[], Tensor]
"""One optimisation step; the loss."""


@dataclass(frozen=True)
class StepCase:
    """A network, its sparsity and how it is trained; everything that an implementation does not decide.

    Attributes:
        model: "mlp" (layers of input size + 4 units, as in the comparison), or "resnetN" for a depth N.
        dense_width: of the perceptron: width of the twin, whose weights per layer are the active ones.
        density: instead of `dense_width`, of every masked layer. Of a ResNet these are all 3x3 convolutions but the
            first.
        depth: hidden layers of the perceptron.
        implementation: of the optimiser.
    """

    model: str = "mlp"
    dense_width: int | None = None
    density: float | None = None
    optimizer: str = "sgd"
    implementation: str = "auto"
    input_shape: tuple[int, ...] = (3, 32, 32)
    classes: int = 100
    depth: int = 4
    batch: int = 128

    def __post_init__(self) -> None:
        check_positive("batch", self.batch)
        if (self.dense_width is None) == (self.density is None):
            raise BadValue("give a dense width or a density")
        if self.density is not None:
            check_fraction("density", self.density)
        if self.model != "mlp":
            resnet_depth(self.model)
            if self.density is None:
                raise BadValue(f"{self.model} has no twin of a dense width; give a density")

    @property
    def title(self) -> str:
        sparsity = f"density {self.density:g}" if self.density is not None else f"dense width {self.dense_width}"
        depth = f", depth {self.depth}" if self.model == "mlp" else ""
        name = "" if self.model == "mlp" else f"{self.model}, "
        return f"step, {name}{sparsity}{depth}, batch {self.batch}, {self.optimizer}"

    def small(self) -> StepCase:
        """The same at the size of nothing, which loads what loads on first use."""
        depth = min(self.depth, 2)
        if self.model == "mlp":
            return StepCase(density=0.5, optimizer=self.optimizer, input_shape=(12,), depth=depth, batch=16)
        return StepCase("resnet8", density=0.5, optimizer=self.optimizer, input_shape=(3, 8, 8), batch=16)


def resnet_depth(model: str) -> int:
    """ "resnet32" -> 32.

    Raises:
        BadValue: for another model.
    """
    depth = model.removeprefix("resnet")
    if depth == model or not depth.isdigit():
        raise BadValue(f"model must be mlp or resnetN, such as resnet32, got {model!r}")
    return int(depth)


def make_step(name: str, case: StepCase, form: str = "") -> Step:
    """A closure that takes one optimisation step of a network on a fixed random batch.

    Args:
        name: "masked", "compact", "twin" (the dense network with as many active weights), "dense" (the network
            without masks), or another name of `rivals.implementations`, whose linear layers then take the masked ones'
            places.
        form: of a ResNet's images: "contiguous" (also "") or "channels-last".

    Raises:
        Missing: where the implementation is not here, or cannot do this network.
        BadValue: for an impossible network.
    """
    make = _mlp if case.model == "mlp" else _resnet
    model, masks, optimizer = make(name, case)
    Sparse(model, masks, optimizer)
    x, y = _batch(case)
    if form == "channels-last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    elif form not in ("", "contiguous"):
        raise BadValue(f"form must be contiguous or channels-last, got {form!r}")
    model.train()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _batch(case: StepCase) -> tuple[Tensor, Tensor]:
    draw = stream(0, "bench")
    x = torch.randn((case.batch, *case.input_shape), generator=draw)
    return x, torch.randint(case.classes, (case.batch,), generator=draw)


Network = tuple[nn.Module, Masks, torch.optim.Optimizer]
"""(model, masks that `Sparse` is to keep, optimiser)."""


def _mlp(name: str, case: StepCase) -> Network:
    spec = _spec("compact" if name == "compact" else "masked", case)
    if name in ("twin", "dense"):
        width = twin_width(case) if name == "twin" else None
        spec = spec.model_copy(update={"mask": RunSpec().mask})
        spec = spec.model_copy(update={"model": spec.model.model_copy(update={"width": width})})
    network = build(spec, case.input_shape, case.classes)
    masks: Masks = network.masks
    if name not in ("masked", "compact", "twin", "dense"):
        _replace(network.model, masks, name)
        masks = {}
    return network.model, masks, optimizer_for(spec, network.model)


def _spec(execution: str, case: StepCase) -> RunSpec:
    mask = {"twin_width": case.dense_width} if case.density is None else {"density": case.density}
    content = {
        "model": {"depth": case.depth},
        "mask": {**mask, "execution": execution},
        "optimizer": {"name": case.optimizer, "implementation": case.implementation},
    }
    return validate(RunSpec, content)


def twin_width(case: StepCase) -> int:
    """The width of the dense perceptron with as many weights, or with most nearly as many."""
    if case.dense_width is not None:
        return case.dense_width
    assert case.density is not None
    inputs = prod(case.input_shape)
    ends, squares = inputs + case.classes, case.depth - 1

    def weights(width: int) -> int:
        return width * ends + width * width * squares

    target = case.density * weights(maximum_width(inputs))
    root = target / ends if not squares else (sqrt(ends * ends + 4 * squares * target) - ends) / (2 * squares)
    return max(1, min(int(root), int(root) + 1, key=lambda width: abs(weights(width) - target)))


def _replace(model: nn.Module, masks: Masks, name: str) -> None:
    """Put an implementation's layers into the masked layers' places."""
    kind = forms(name, "linear")
    if not kind:
        raise Missing(f"{name} is left out: it has no linear layer")
    for weight, mask in masks.items():
        prefix = weight.rpartition(".")[0]
        parent, _, child = prefix.rpartition(".")
        setattr(model.get_submodule(parent), child, kind[0].make(model.get_submodule(prefix), mask))


def _resnet(name: str, case: StepCase) -> Network:
    if name not in ("masked", "compact", "dense"):
        raise Missing(f"{name} is left out: a whole {case.model} is timed masked, compact and dense")
    model = sketch("resnet", case.input_shape, case.classes, depth=resnet_depth(case.model))
    masks = {} if name == "dense" else resnet_masks(model, case.density or 1.0)
    if name == "compact":
        conversion = compact(model, masks)
        if conversion.left_masked:
            weight, reason = next(iter(conversion.left_masked.items()))
            raise Missing(f"compact is left out: {len(conversion.left_masked)} layers, {weight} first: {reason}")
        model = conversion.model
    materialise(model)
    draw_active_(model, masks)
    groups = parameter_groups(model.parameters(), (), decay_others=True)
    return model, masks, make_optimizer(case.optimizer, groups, lr=0.001, implementation=case.implementation)


def resnet_masks(model: nn.Module, density: float) -> dict[str, Tensor]:
    """Random masks of one density for every 3x3 convolution but the first."""
    convolutions = [name for name, shape in weight_shapes(model).items() if shape[2:] == (3, 3)][1:]
    shapes = {name: shape for name, shape in weight_shapes(model).items() if name in convolutions}
    return random_masks(shapes, uniform(shapes, density), seed=0)
