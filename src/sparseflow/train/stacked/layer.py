"""What a module computes, for all members of a stack at once: forward, and backward by hand.

Tensors are (members, batch, ...), those of features laid out feature by feature with the batch contiguous: products of
odd widths are up to several times faster so, and sums over the batch run along memory. They are made by `memory.room`
when a program is made and used again in every step: a step allocates next to nothing, launches few operations and never
asks the device for a number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from sparseflow.train.stacked.memory import room

Mode = Literal["train", "probe", "evaluate"]
"""probe: as train, but nothing is dropped and running statistics stay; evaluate: as in `model.eval()`."""


@dataclass(frozen=True)
class Own:
    """The tensors of one module, (members, *shape) each, by their names in the module."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    """Like `buffers`: what a training step saw, by which its stack then moves the buffers, all layers' at once."""


class Layer(ABC):
    """One use of a module.

    A gradient handed to `backward` belongs to the layer, which may write its answer into it.

    Attributes:
        overwrites: may write its output over its input, which nothing else reads.
        keeps_output: reads its output in `backward`, so no later layer may write over it.
        x, y: input and output.
    """

    overwrites = False
    keeps_output = False

    def __init__(self, module: nn.Module, own: Own) -> None:
        self.module, self.own = module, own

    def prepare(self, x: Tensor, *, over: bool, wanted: bool) -> Tensor:
        """Make room for the output (`over`: the input's) and whatever a step needs; the output.

        Args:
            wanted: whether `backward` is to return the input's gradient.
        """
        self.x, self.wanted = x, wanted
        self.y = x if over else self._room_for_output()
        return self.y

    def _room_for_output(self) -> Tensor:
        return self.like(tuple(self.x.shape[1:]))

    def like(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """Room for a tensor (members, *shape); (batch, features) is laid out feature by feature."""
        of = self.x if dtype is None else self.x.new_empty(0, dtype=dtype)
        if len(shape) == 2:
            return room(len(self.x), (shape[1], shape[0]), of).transpose(1, 2)
        return room(len(self.x), shape, of)

    @abstractmethod
    def forward(self, mode: Mode) -> None:
        """From `x` to `y`."""

    @abstractmethod
    def backward(self, g: Tensor) -> Tensor:
        """After a forward pass in mode train or probe: the input's gradient, from the output's.

        Parameters' gradients are written into their places.
        """
