"""What the floors hand to each other: the training loop calls probes and recorders without knowing who made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from sparseflow.core.weights import Batch, Loss, Masks


@dataclass(frozen=True)
class Moment:
    """A moment of training: optimiser steps taken, and the same in epochs."""

    step: int
    epoch: float


@dataclass(frozen=True)
class Metric:
    """What is measured, and of which weight layer ("" for the whole network)."""

    name: str
    layer: str = ""


class Probe(Protocol):
    """A measurement taken at the points of training that a run asks for; it must leave the model as it was."""

    def __call__(self, model: nn.Module, masks: Masks) -> Mapping[Metric, float]: ...


@runtime_checkable
class GradientProbe(Protocol):
    """A probe that can be told a gradient instead of taking it, so that those of many networks are taken together."""

    @property
    def loss(self) -> Loss: ...

    @property
    def batches(self) -> Sequence[Batch]: ...

    def takes_gradients(self) -> bool:
        """Whether the mean gradient over all examples of `batches`, with batch statistics, is all that it needs."""
        ...

    def of_gradients(self, model: nn.Module, masks: Masks, gradients: Mapping[str, Tensor]) -> Mapping[Metric, float]:
        """As a call, from parameter name -> that gradient, masked entries included."""
        ...


class Companion(Protocol):
    """What goes along with a training within its model, such as ghosts: told of every optimiser step, saved with it."""

    def step(self) -> None:
        """An optimiser step was taken."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; the model's own state is loaded afterwards."""
        ...


class Recorder(Protocol):
    """Takes measured values as they appear."""

    def __call__(self, at: Moment, values: Mapping[Metric, float]) -> None: ...
