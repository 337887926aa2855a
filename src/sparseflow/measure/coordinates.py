"""The active weights of a model as the coordinates of one flat vector; a masked weight has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Masks, check_masks, other_parameters, stand_ins, weight_shapes, weight_values


@dataclass(frozen=True)
class Place:
    """Where one weight's active entries lie, row-major in its mask, whichever way the layer holds them.

    Attributes:
        coordinates: of the flat vector.
        shape: of the dense weight.
        carrier: the shape of the parameter that carries it: the same, or a compact layer's (active,).
        held: index of each among the entries of the parameter that carries the weight, int64; None for all in order.
        dense: index of each in the flattened dense weight, int64; None for all in order.
    """

    coordinates: slice
    shape: torch.Size
    carrier: torch.Size
    held: Tensor | None
    dense: Tensor | None


class Coordinates:
    """Flat vector of active weights <-> tensors by name; masked and compact execution have the same coordinates.

    A parameter that several layers share has one set of coordinates, under its first name.

    Args:
        masks: of layers in masked execution; compact layers know theirs; layers without one are dense.
        others: biases and the parameters of normalisation and activations have coordinates too, after the weights.

    Attributes:
        places: weight name -> `Place`, in the model's order.
        size: the number of coordinates.

    Raises:
        BadValue: for a mask that fits no weight, a shared parameter with two masks, or no active weight at all.
    """

    def __init__(self, model: nn.Module, masks: Masks | None = None, *, others: bool = False) -> None:
        check_masks(model, masks or {})
        self.places: dict[str, Place] = {}
        self.size = 0
        layers, shapes = stand_ins(model), weight_shapes(model)
        of_parameter = _masks_by_parameter(model, masks or {})
        for name, parameter in carriers(model, others=others).items():
            held: Tensor | None = None
            dense: Tensor | None = None
            if name in layers:
                held, dense = layers[name].row_major()
            elif id(parameter) in of_parameter:
                held = dense = of_parameter[id(parameter)].to(parameter.device).flatten().nonzero().squeeze(1)
            count = parameter.numel() if held is None else len(held)
            shape = shapes.get(name, parameter.shape)
            self.places[name] = Place(slice(self.size, self.size + count), shape, parameter.shape, held, dense)
            self.size += count
        if not self.size:
            raise BadValue("the model has no active weight; give it weight layers, or masks that keep some of them")

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Carriers' tensors -> (size,); leading dimensions of a batch are kept: (k, *shape) -> (k, size)."""
        every = self.places.items()
        return torch.cat([_picked(tensors[name], place.held, len(place.carrier)) for name, place in every], -1)

    def scatter(self, vector: Tensor) -> dict[str, Tensor]:
        """(..., size) -> carriers' tensors, zeros at masked weights."""
        return {
            name: _spread(vector[..., place.coordinates], place.held, place.carrier)
            for name, place in self.places.items()
        }

    def dense(self, vector: Tensor) -> dict[str, Tensor]:
        """(size,) -> weight name -> dense tensor, zeros at masked weights."""
        return {
            name: _spread(vector[place.coordinates], place.dense, place.shape) for name, place in self.places.items()
        }

    def of_state(self, state: Mapping[str, Tensor]) -> Tensor:
        """(size,): the active entries of dense weights by name, such as a `state_dict`; the others are left out.

        Raises:
            BadValue: if a weight is missing or has another shape.
        """
        for name, place in self.places.items():
            if name not in state:
                raise BadValue(f"the state has no {name!r} (it has: {', '.join(state) or 'nothing'})")
            if state[name].shape != place.shape:
                raise BadValue(f"{name} has shape {tuple(state[name].shape)}, the model's {tuple(place.shape)}")
        every = self.places.items()
        return torch.cat([_picked(state[name].detach(), place.dense, len(place.shape)) for name, place in every])

    def of_model(self, model: nn.Module) -> Tensor:
        """(size,): a model's active weights, detached."""
        return self.gather({name: p.detach() for name, p in self.held_by(model).items()})

    def held_by(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Weight name -> the parameter that carries it in the model, or in a copy of it."""
        found = weight_values(model) | other_parameters(model)
        return {name: found[name] for name in self.places}

    @torch.no_grad()
    def place(self, model: nn.Module, vector: Tensor) -> None:
        """Make (size,) the model's active weights; masked ones become 0."""
        parameters = self.held_by(model)
        for name, tensor in self.scatter(vector).items():
            parameters[name].copy_(tensor)


def carriers(model: nn.Module, *, others: bool) -> dict[str, nn.Parameter]:
    """Weight name -> the parameter that carries it, each parameter once."""
    every = weight_values(model) | (other_parameters(model) if others else {})
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, parameter in every.items():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            found[name] = parameter
    return found


def _masks_by_parameter(model: nn.Module, masks: Masks) -> dict[int, Tensor]:
    layers, parameters = stand_ins(model), weight_values(model)
    found: dict[int, tuple[str, Tensor]] = {}
    for name in masks:
        if name in layers:
            continue
        first, mask = found.setdefault(id(parameters[name]), (name, masks[name]))
        if first != name and not torch.equal(mask, masks[name].to(mask.device)):
            raise BadValue(f"{first} and {name} are one parameter and have two masks; give them the same")
    return {key: mask for key, (_, mask) in found.items()}


def _picked(tensor: Tensor, at: Tensor | None, dims: int) -> Tensor:
    """The entries of the last `dims` dimensions as one, all or those `at` an index."""
    flat = tensor.reshape(*tensor.shape[: tensor.dim() - dims], -1)
    return flat if at is None else flat[..., at.to(flat.device)]


def _spread(vector: Tensor, at: Tensor | None, shape: torch.Size) -> Tensor:
    lead = vector.shape[:-1]
    if at is None:
        return vector.reshape(*lead, *shape)
    flat = vector.new_zeros(*lead, shape.numel())
    flat[..., at] = vector
    return flat.view(*lead, *shape)
