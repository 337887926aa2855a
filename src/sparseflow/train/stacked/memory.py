"""Memory for the tensors of all members of a stack, laid out so that no member's numbers depend on the others.

A kernel may round an element differently by where it lies: in the vector body of a loop or in its tail, at an address
that a vector load likes or not. So each member's part begins at a multiple of `LANES` elements of a storage that is
aligned itself. Either the parts then lie apart, and a kernel goes over each by itself; or they touch, and nothing is a
tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

LANES = 32
"""Elements: two vectors of 16 floats, the unit in which torch's loops over elements go."""


def rounded_up(count: int) -> int:
    return -(-count // LANES) * LANES


def room(members: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor (members, *shape), of `like`'s dtype and device; each member's part is contiguous."""
    stride = rounded_up(prod(shape))
    flat = torch.empty(members, stride, dtype=like.dtype, device=like.device)
    return flat[:, : prod(shape)].view(members, *shape)


class Pack:
    """Named tensors of all members in one storage, member by member.

    Attributes:
        flat: (members, padded size), zeros where no tensor lies.
        parts: name -> view (members, *shape).
    """

    def __init__(self, shapes: Mapping[str, torch.Size], members: int, like: Tensor) -> None:
        places: dict[str, tuple[int, torch.Size]] = {}
        size = 0
        for name, shape in shapes.items():
            places[name] = (size, shape)
            size += rounded_up(shape.numel())
        self.flat = torch.zeros(members, size, dtype=like.dtype, device=like.device)
        self._places = places
        self.parts = self.views(self.flat)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """name -> view (members, *shape) of a tensor that is laid out as `flat` is."""
        return {
            name: flat[:, start : start + shape.numel()].view(len(flat), *shape)
            for name, (start, shape) in self._places.items()
        }

    def empty_copy(self) -> Tensor:
        """A tensor of zeros that is laid out as `flat` is."""
        return torch.zeros_like(self.flat)
