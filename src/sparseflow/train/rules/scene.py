"""What a rule sees and what it answers, the same in masked and compact execution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerScene:
    """One weight that has a mask, after an optimiser step.

    Attributes:
        shape: the dense weight's.
        places: index of each active weight in the flattened dense weight, (active,) int64, rising.
        values: of the active weights, (active,), detached.
        gradient: dLoss/dWeight of this step with the dense shape, masked entries included, if the rule needs it.
    """

    shape: torch.Size
    places: Tensor
    values: Tensor
    gradient: Tensor | None = None

    @property
    def active(self) -> int:
        return self.places.numel()

    @property
    def is_dense(self) -> bool:
        return self.active == self.shape.numel()


@dataclass(frozen=True)
class Scene:
    """A moment of training.

    Attributes:
        step: optimiser steps taken, this one included.
        rate: the present learning rate over the one that training began with.
        layers: weight name -> what is there, in the order of the masks; a shared weight goes by its first name.
    """

    step: int
    rate: float
    layers: Mapping[str, LayerScene]


@dataclass(frozen=True)
class Change:
    """What becomes of one weight.

    Attributes:
        drop: positions in `LayerScene.places` that are no longer active, int64.
        grow: indices in the flattened dense weight that become active and start at 0, int64; none of them stays active
            (one that is dropped may be among them).
    """

    drop: Tensor
    grow: Tensor


class Rule(Protocol):
    """When and how masks change; `Sparse` carries it out."""

    @property
    def needs_gradient(self) -> bool:
        """Whether `changes` looks at the gradient of weights that are not active."""
        ...

    @property
    def replaces_step(self) -> bool:
        """Whether the optimiser's step is undone where masks change."""
        ...

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimiser steps."""
        ...

    def changes(self, at: Scene) -> Mapping[str, Change]:
        """What becomes of the weights whose masks change, by name."""
        ...
