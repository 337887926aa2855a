"""The part of a specification that says how masks change during training at a constant number of active weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from sparseflow.study.fields import Density, Number, Positive, Section, known_in
from sparseflow.study.fields import fraction as check
from sparseflow.train import Rewire, decays, rewirings


class RewireSpec(Section):
    """Dynamic sparse training: drop and grow connections at a constant number of active weights (`train.Rewire`)."""

    rule: str
    """Which connections are dropped and which are grown."""
    every: Positive = 100
    """Optimiser steps between two updates."""
    stop: Annotated[Number, Field(gt=0.0, le=1.0)] = 0.75
    """The part of the training after which nothing is rewired any more."""
    fraction: Density = 0.3
    """Part of a layer's active weights that the first update drops."""
    decay: str = "cosine"
    """How that part falls."""
    replace_step: bool = True
    """An update takes the place of the optimiser's step; else it follows it."""
    keep_regrown: bool = True
    """A weight that is dropped and grown in one update keeps its value."""
    gradient_norms: bool = False
    """Measure the gradient norm on the step's batch just before and just after every update."""

    @field_validator("rule")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_in(rewirings, name)

    @field_validator("decay")
    @classmethod
    def _known_decay(cls, name: str) -> str:
        return known_in(decays, name)

    @field_validator("fraction")
    @classmethod
    def _in_range(cls, fraction: float) -> float:
        return check("the fraction to drop", fraction)

    def engine(self, steps: int, seed: int) -> Rewire:
        """The rule of a training of so many steps."""
        return Rewire(
            self.rule,
            every=self.every,
            stop=max(1, round(self.stop * steps)),
            fraction=self.fraction,
            decay=self.decay,
            replace_step=self.replace_step,
            keep_regrown=self.keep_regrown,
            seed=seed,
        )
