"""What the floors hand to each other: the training loop calls probes and recorders without knowing who made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from sparseflow.core.weights import Masks


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


class Recorder(Protocol):
    """Takes measured values as they appear."""

    def __call__(self, at: Moment, values: Mapping[Metric, float]) -> None: ...
