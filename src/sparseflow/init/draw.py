"""Variance formulas and distributions of weight initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import torch
from torch import Tensor

from sparseflow.core import BadValue, UnknownName

F = TypeVar("F", float, Tensor)

schemes = {"he": (2.0, "in"), "glorot": (1.0, "average")}
"""Scheme -> (numerator c of Var(w) = c / u, default u): He et al. 2015 eq. 10; Glorot & Bengio 2010 eq. 16."""

distributions = ("normal", "uniform")
fan_modes = ("in", "out", "average")


@dataclass(frozen=True)
class Scheme:
    """Var(w) = c / u for a layer: c by name, u its fan-in, fan-out or their mean; normal or uniform, mean 0."""

    name: str = "he"
    distribution: str = "normal"
    fan: str | None = None

    def __post_init__(self) -> None:
        if self.name not in schemes:
            raise UnknownName("initialisation", self.name, schemes)
        if self.distribution not in distributions:
            raise UnknownName("distribution", self.distribution, distributions)
        if self.fan is not None and self.fan not in fan_modes:
            raise UnknownName("fan", self.fan, fan_modes)

    def deviation(self, shape: torch.Size) -> float:
        """The standard deviation of a weight in a dense layer of `shape`."""
        fan_in, fan_out = fans(shape)
        return sqrt(self.numerator / self.of_fans(float(fan_in), float(fan_out)))

    @property
    def numerator(self) -> float:
        """c of Var(w) = c / u."""
        return schemes[self.name][0]

    def of_fans(self, fan_in: F, fan_out: F) -> F:
        """u of Var(w) = c / u."""
        how = self.fan or schemes[self.name][1]
        return fan_in if how == "in" else fan_out if how == "out" else (fan_in + fan_out) / 2

    def draw(self, deviation: float | Tensor, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """`count` values of the given standard deviation, one for all or (count,) their own.

        A uniform draw spans +-sqrt(3) standard deviations.
        """
        scale = 1.0 if isinstance(deviation, Tensor) else deviation
        drawn = torch.empty(count, dtype=dtype)
        if self.distribution == "normal":
            drawn.normal_(0.0, scale, generator=generator)
        else:
            bound = sqrt(3.0) * scale
            drawn.uniform_(-bound, bound, generator=generator)
        return drawn.mul_(deviation) if isinstance(deviation, Tensor) else drawn


def fans(shape: torch.Size) -> tuple[int, int]:
    """(fan-in, fan-out) of a dense weight of shape (out, in, *kernel); kernel positions count in both.

    Raises:
        BadValue: for fewer than two dimensions.
    """
    if len(shape) < 2:
        raise BadValue(f"fans need a weight of at least two dimensions, got shape {tuple(shape)}")
    positions = shape[2:].numel() if len(shape) > 2 else 1
    return shape[1] * positions, shape[0] * positions
