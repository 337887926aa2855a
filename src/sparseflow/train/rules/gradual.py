"""Gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparseflow.masks import Budget, Empty, Gradual, select, without
from sparseflow.train.rules.scene import Change, Scene


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

    needs_gradient: ClassVar[bool] = False
    replaces_step: ClassVar[bool] = False

    def due(self, step: int) -> bool:
        return self.schedule.due(step)

    def changes(self, at: Scene) -> Mapping[str, Change]:
        shapes = {name: layer.shape for name, layer in at.layers.items()}
        final = without(self.final, shapes, self.dense)
        pruned = {name: layer for name, layer in at.layers.items() if name not in self.dense}
        goal = self.schedule.budget(at.step, final, {name: shapes[name] for name in pruned})
        kept = select({n: layer.values.abs() for n, layer in pruned.items()}, goal, self.seed, empty=self.empty)
        drop = {name: (~mask).nonzero().squeeze(1) for name, mask in kept.items()}
        return {name: Change(places, places.new_empty(0)) for name, places in drop.items()}
