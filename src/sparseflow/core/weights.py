"""The weights of a model by name, whichever way a layer holds them.

A *weight layer* owns a parameter of two or more dimensions. An ordinary layer holds it as that parameter; a compact
layer (`sparseflow.sparse`) holds only the active values and stands for the weight. Everything above this floor speaks
of weights by the dense parameter's name and meets compact layers through `StandsForWeight` alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sparseflow.core.errors import BadValue

Masks: TypeAlias = Mapping[str, Tensor]
"""Parameter name -> bool tensor of the parameter's shape; True where the weight is active."""

Shapes: TypeAlias = Mapping[str, torch.Size]
"""Weight name -> the dense shape of the weight."""

Batch: TypeAlias = tuple[Tensor, Tensor]
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(model output, target) -> scalar tensor."""


class StandsForWeight(ABC):
    """A layer that stands for a dense weight without having it as a parameter.

    A base class and no protocol: models are walked layer by layer all the time, and asking whether a layer fits a
    protocol took a fifth of a short training.
    """

    weight_shape: torch.Size
    values: nn.Parameter

    @abstractmethod
    def active_mask(self) -> Tensor:
        """Bool tensor of `weight_shape`."""

    @abstractmethod
    def has_mask(self, mask: Tensor) -> bool:
        """Whether the layer's pattern is this mask."""

    @abstractmethod
    def dense_weight(self) -> Tensor:
        """The weight as a dense tensor of `weight_shape`, zeros where inactive; detached."""

    @abstractmethod
    def set_active(self, values: Tensor) -> None:
        """Assign the active values, given in the row-major order of the mask."""

    @abstractmethod
    def row_major(self) -> tuple[Tensor, Tensor]:
        """For the active weights in row-major order: index among `values`, index in the flattened weight; int64."""

    @abstractmethod
    def rewire_(self, drop: Tensor, grow: Tensor) -> Tensor:
        """Drop values (by index) and grow weights (by index in the flattened weight) that start at 0.

        Returns:
            For each new value its index among the old ones, -1 for a grown one.
        """

    @abstractmethod
    def tapped(self) -> AbstractContextManager[Tensor]:
        """Inside, a forward pass depends on the yielded leaf so that its gradient is dLoss/dWeight, dense."""


class ModelMasks(Mapping[str, Tensor]):
    """The masks of a model's sparse layers, of which a compact layer's is made from the layer whenever it is asked for.

    A mask has as many bytes as the dense weight has entries: kept for every compact layer, they would outweigh it.

    Args:
        kept: masks of layers in masked execution.
        names: of all the weights that have a mask, in order; those not kept are of compact layers.
    """

    def __init__(self, model: nn.Module, kept: Masks, names: Iterable[str]) -> None:
        layers = stand_ins(model)
        self._sources = {name: kept[name] if name in kept else layers[name] for name in names}

    def __getitem__(self, name: str) -> Tensor:
        source = self._sources[name]
        return source if isinstance(source, Tensor) else source.active_mask()

    def is_of(self, name: str, layer: object) -> bool:
        """Whether the mask is this very layer's, and so needs no comparison."""
        return self._sources.get(name) is layer

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def stand_ins(model: nn.Module) -> dict[str, StandsForWeight]:
    """Weight name -> the layer that stands for it, in module order."""
    found: dict[str, StandsForWeight] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, StandsForWeight):
            found[join(prefix, "weight")] = module
    return found


def weight_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Weight name -> dense shape for every weight layer, in the order in which the model registers its modules."""
    shapes: dict[str, torch.Size] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, StandsForWeight):
            shapes[join(prefix, "weight")] = module.weight_shape
        for name, p in module.named_parameters(recurse=False):
            if p.dim() >= 2:
                shapes[join(prefix, name)] = p.shape
    return shapes


def weight_values(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weight name -> the parameter that carries it: the dense weight, or the active values of a compact layer."""
    carried = {name: layer.values for name, layer in stand_ins(model).items()}
    return {name: carried[name] if name in carried else model.get_parameter(name) for name in weight_shapes(model)}


def other_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are not weights of a weight layer: biases, normalisation, activation parameters."""
    carriers = {id(p) for p in weight_values(model).values()}
    return {name: p for name, p in model.named_parameters() if id(p) not in carriers}


def active_counts(model: nn.Module, masks: Masks) -> dict[str, int]:
    """Weight name -> number of active weights: the mask's, a compact layer's own, else all."""
    compact = stand_ins(model)
    counts: dict[str, int] = {}
    for name, shape in weight_shapes(model).items():
        if name in compact:
            counts[name] = compact[name].values.numel()
        else:
            counts[name] = int(masks[name].count_nonzero()) if name in masks else shape.numel()
    return counts


def check_masks(model: nn.Module, masks: Masks) -> None:
    """Raise unless every mask is a bool tensor of the shape of a weight of `model`.

    Raises:
        BadValue: naming the mask, its shape or dtype, and what the model has.
    """
    shapes, compact = weight_shapes(model), stand_ins(model)
    for name in masks:
        if name not in shapes:
            raise BadValue(f"mask {name!r} matches no weight of the model (it has: {', '.join(shapes) or 'none'})")
        if name in compact and isinstance(masks, ModelMasks) and masks.is_of(name, compact[name]):
            continue
        mask = masks[name]
        if mask.dtype is not torch.bool:
            raise BadValue(f"mask {name!r} must be a bool tensor, got {mask.dtype}")
        if mask.shape != shapes[name]:
            raise BadValue(f"mask {name!r} has shape {tuple(mask.shape)}, its weight {tuple(shapes[name])}")


@torch.no_grad()
def set_active(model: nn.Module, name: str, values: Tensor, mask: Tensor | None) -> None:
    """Assign the active values of one weight, row-major in the mask; inactive entries become exactly 0.

    Args:
        values: shape (active,), or the number of all weights where `mask` is None.
    """
    prefix, _, attribute = name.rpartition(".")
    layer = model.get_submodule(prefix)
    if isinstance(layer, StandsForWeight) and attribute == "weight":
        layer.set_active(values)
        return
    weight = model.get_parameter(name)
    values = values.to(weight)
    if mask is None:
        weight.copy_(values.view_as(weight))
    else:
        weight.zero_().masked_scatter_(mask.to(weight.device), values)


@contextmanager
def tapped_weights(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, weight name -> a tensor whose gradient is dLoss/dWeight with the dense shape, masked entries included."""
    compact = stand_ins(model)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(compact[name].tapped()) if name in compact else model.get_parameter(name)
            for name in names
        }


def state_digest(tensors: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: equal exactly when all tensors are equal bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{flat.dtype}|{tuple(flat.shape)}|".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
