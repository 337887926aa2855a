"""When: how many weights are active after each of several rounds, and along a training."""

from __future__ import annotations

from dataclasses import dataclass

from sparseflow.core import BadValue, Shapes, check_fraction, check_positive
from sparseflow.masks.apportion import round_half_up
from sparseflow.masks.budget import Budget


def exponential(budget: Budget, shapes: Shapes, done: int, rounds: int) -> Budget:
    """The budget after `done` of `rounds` rounds: n * (k / n)^(done / rounds) of n weights of which k stay at the end.

    Every layer's density falls by one factor a round; with a budget over all layers, the density of the network
    (SynFlow's schedule: Tanaka et al. 2020, algorithm 1).
    """
    if done >= rounds:
        return budget

    def at(final: int, size: int) -> int:
        return max(final, round_half_up((final / size) ** (done / rounds), size))

    if isinstance(budget, int):
        return at(budget, sum(shape.numel() for shape in shapes.values()))
    return {name: at(final, shapes[name].numel()) for name, final in budget.items()}


@dataclass(frozen=True)
class Gradual:
    """Gradual pruning (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1), in densities:

    d(t) = d_f + (d_i - d_f) (1 - (t - t0) / (t1 - t0))^3 at t0, t0 + every, ... and, reaching d_f exactly, at t1.

    Attributes:
        start, end: t0 and t1, in optimiser steps.
        every: steps between two prunings.
        initial: d_i, the density before t0.

    Raises:
        BadValue: for an interval below 1, an end before the start, or an initial density outside of (0, 1].
    """

    start: int
    end: int
    every: int = 100
    initial: float = 1.0

    def __post_init__(self) -> None:
        check_positive("every (steps between two prunings)", self.every)
        check_fraction("initial density", self.initial)
        if self.start < 0 or self.end < self.start:
            raise BadValue(f"gradual pruning must end at or after its start, got start {self.start}, end {self.end}")

    def due(self, step: int) -> bool:
        """Whether weights are pruned after `step` optimiser steps."""
        if not self.start <= step <= self.end:
            return False
        return step == self.end or (step - self.start) % self.every == 0

    def density(self, step: int, final: float) -> float:
        """The density after `step` optimiser steps on the way to `final`; it never rises.

        Raises:
            BadValue: if `final` exceeds the initial density.
        """
        if final > self.initial:
            raise BadValue(f"the final density {final:g} exceeds the initial one, {self.initial:g}")
        if step < self.start:
            return self.initial
        if step >= self.end:
            return final
        left = 1.0 - (step - self.start) / (self.end - self.start)
        return final + (self.initial - final) * left**3

    def budget(self, step: int, final: Budget, shapes: Shapes) -> Budget:
        """Active weights after `step` optimiser steps, of each layer or of all, where `final` is reached at the end."""
        if step >= self.end:
            return final

        def at(count: int, size: int) -> int:
            return max(count, round_half_up(self.density(step, min(count / size, self.initial)), size))

        if isinstance(final, int):
            return at(final, sum(shape.numel() for shape in shapes.values()))
        return {name: at(count, shapes[name].numel()) for name, count in final.items()}
