"""Variance formulas and distributions of weight initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sparseflow.core import BadValue, UnknownName

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
        c, default = schemes[self.name]
        fan_in, fan_out = fans(shape)
        u = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[self.fan or default]
        return sqrt(c / u)

    def draw(self, shape: torch.Size, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """`count` values for a dense layer of `shape`; a uniform draw spans +-sqrt(3) standard deviations."""
        deviation = self.deviation(shape)
        if self.distribution == "normal":
            return torch.empty(count, dtype=dtype).normal_(0.0, deviation, generator=generator)
        bound = sqrt(3.0) * deviation
        return torch.empty(count, dtype=dtype).uniform_(-bound, bound, generator=generator)


def fans(shape: torch.Size) -> tuple[int, int]:
    """(fan-in, fan-out) of a dense weight of shape (out, in, *kernel); kernel positions count in both.

    Raises:
        BadValue: for fewer than two dimensions.
    """
    if len(shape) < 2:
        raise BadValue(f"fans need a weight of at least two dimensions, got shape {tuple(shape)}")
    positions = shape[2:].numel() if len(shape) > 2 else 1
    return shape[1] * positions, shape[0] * positions
