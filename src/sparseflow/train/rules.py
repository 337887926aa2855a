"""Rules that change masks along a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sparseflow.core import Masks
from sparseflow.masks import Budget, Empty, Gradual, select, without


@dataclass(frozen=True)
class Scene:
    """What a rule may look at, after an optimiser step.

    Attributes:
        step: optimiser steps taken.
        weights: of every weight that has a mask and is in masked execution, by name, detached.
        masks: theirs.
    """

    step: int
    weights: Mapping[str, Tensor]
    masks: Masks


class Rule(Protocol):
    """When and how masks change; `Sparse` carries it out."""

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimiser steps."""
        ...

    def masks(self, at: Scene) -> Mapping[str, Tensor]:
        """The new masks of the weights whose masks change."""
        ...


@dataclass(frozen=True)
class GradualMagnitude:
    """Remove the smallest active weights along a schedule, until the budget is reached (Zhu & Gupta 2017).

    Attributes:
        schedule: when, and how many.
        final: active weights at the end, of each layer or of all that have a mask.
        dense: weights that are left as they are; they count in a number for all.
    """

    schedule: Gradual
    final: Budget
    dense: frozenset[str] = frozenset()
    empty: Empty = "one"
    seed: int = 0

    def due(self, step: int) -> bool:
        return self.schedule.due(step)

    def masks(self, at: Scene) -> Mapping[str, Tensor]:
        shapes = {name: weight.shape for name, weight in at.weights.items()}
        final = without(self.final, shapes, self.dense)
        scores = {name: weight.abs() for name, weight in at.weights.items() if name not in self.dense}
        goal = self.schedule.budget(at.step, final, {name: shapes[name] for name in scores})
        return select(scores, goal, self.seed, within=at.masks, empty=self.empty)
