"""Search spaces over layer densities: which vectors there are, and the exact counts that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue, check_fraction, check_positive
from sparseflow.masks import round_half_up

Vector = tuple[float, ...]
"""The density of each layer in the space's order, or one for all; multiples of 10**-DECIMALS."""
Floats = npt.NDArray[np.float64]

DECIMALS = 6
STEPS: int = 10**DECIMALS  # to a density of 1
_HALVINGS = 40  # of the part that `project` keeps


@dataclass(frozen=True)
class Space:
    """Densities of layers between `low` and `high`, whose counts of active weights may have a bound in common.

    A layer of n weights at density d has max(1, round(d * n)) active ones, as the budgets "vector" and "uniform" count
    them. A vector obeys `max_density` if the sum of those counts is at most floor(max_density * total): a statement
    about weights, not about densities.

    Args:
        sizes: layer name -> its number of weights, in the model's order.
        uniform: one density for all layers (001 sec. 4.3.1.1) instead of one for each (001 eq. 4.1).
        low: the smallest density of a layer. The paper writes 0; a layer without weights passes nothing on.
        high: the largest one.
        max_density: the largest part of all weights that may be active.

    Raises:
        BadValue: for no layers or an empty one, bounds that are not 0 < low <= high <= 1 with at most 6 decimals, a
            `max_density` outside (0, 1] or one that even the lowest vector does not obey.
    """

    sizes: Mapping[str, int]
    uniform: bool = False
    low: float = 0.001
    high: float = 1.0
    max_density: float | None = None

    def __post_init__(self) -> None:
        if not self.sizes:
            raise BadValue("a search needs at least one layer that gets a mask, got none")
        for name, size in self.sizes.items():
            check_positive(f"weights of {name}", size)
        for what, value in (("low", self.low), ("high", self.high)):
            if rounded(check_fraction(what, value)) != value:
                raise BadValue(f"{what} must have at most {DECIMALS} decimals, got {value!r}")
        if self.low > self.high:
            raise BadValue(f"low must not be above high, got {self.low:g} and {self.high:g}")
        if self.max_density is not None:
            check_fraction("max_density", self.max_density)
            if not self.obeys(self.lowest):
                raise BadValue(
                    f"max_density {self.max_density:g} allows {self.limit:,} of {self.total:,} weights, but the lowest "
                    f"vector (every layer at low = {self.low:g}) has {self.active(self.lowest):,}; "
                    "give a larger max_density or a smaller low"
                )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return 1 if self.uniform else len(self.sizes)

    @property
    def weights(self) -> tuple[int, ...]:
        """How many weights each number of a vector is about."""
        return (self.total,) if self.uniform else tuple(self.sizes.values())

    @property
    def total(self) -> int:
        """Weights of all layers."""
        return sum(self.sizes.values())

    @property
    def limit(self) -> int:
        """The most active weights that a vector may have."""
        return self.total if self.max_density is None else math.floor(Fraction(repr(self.max_density)) * self.total)

    @property
    def lowest(self) -> Vector:
        return (self.low,) * self.dimensions

    def densities(self, vector: Sequence[float]) -> dict[str, float]:
        """Layer -> its density.

        Raises:
            BadValue: for another number of densities than the space has dimensions.
        """
        if len(vector) != self.dimensions:
            raise BadValue(f"a vector of this space has {self.dimensions} densities, got {len(vector)}")
        return dict(zip(self.sizes, list(vector) * len(self.sizes) if self.uniform else vector, strict=False))

    def counts(self, vector: Sequence[float]) -> dict[str, int]:
        """Layer -> its number of active weights."""
        return {name: round_half_up(d, self.sizes[name]) for name, d in self.densities(vector).items()}

    def active(self, vector: Sequence[float]) -> int:
        """Active weights of all layers together."""
        return sum(self.counts(vector).values())

    def total_density(self, vector: Sequence[float]) -> float:
        """Part of all weights that is active."""
        return self.active(vector) / self.total

    def obeys(self, vector: Sequence[float]) -> bool:
        """Whether every density lies between the bounds and the counts sum to no more than `limit`."""
        return all(self.low <= d <= self.high for d in vector) and self.active(vector) <= self.limit

    def project(self, vector: Sequence[float]) -> Vector:
        """The nearest vector below this one that obeys: each density goes the same part of its way down to `low`.

        A vector that obeys only has its decimals rounded. Of the others, the part that is kept is the largest one that
        obeys, so the bound is used up, and what layers have above `low` stays in proportion, which is what a vector
        says. The Euclidean projection would take n times some amount from a layer of n weights, and so put the largest
        layers at `low` and leave the small ones as they are.

        Raises:
            BadValue: for a density that is not finite.
        """
        if not all(math.isfinite(d) for d in vector):
            raise BadValue(f"densities must be finite, got {tuple(vector)}")
        clipped = tuple(rounded(min(max(d, self.low), self.high)) for d in vector)
        if self.obeys(clipped):
            return clipped

        def kept(part: int) -> Vector:  # of 2**_HALVINGS; every density and every count grows with it
            return tuple(self._step(d, part / 2**_HALVINGS) for d in clipped)

        most = 0
        for bit in reversed(range(_HALVINGS)):
            if self.obeys(kept(most | 1 << bit)):
                most |= 1 << bit
        return kept(most)

    def _step(self, density: float, part: float) -> float:
        """`part` of the way from `low` to `density`, rounded down."""
        first = round(self.low * STEPS)
        return (first + math.floor(part * (round(density * STEPS) - first))) / STEPS

    def to_cube(self, vector: Sequence[float]) -> Floats:
        """The point of the unit cube that stands for a vector that obeys; shape (dimensions,).

        Without a bound on the total, density by density. With one, the vectors that obey (without rounding) are a cube
        of which a half-space is cut off. Both are full of rays from the corner `low`: a point goes to the same part of
        its ray in the other. So the whole cube stands for vectors that obey and no two points for the same one, and an
        acquisition function can be maximised over the cube, without a point that is better but not allowed.
        """
        return self._moved((np.asarray(vector) - self.low) / self._span, outwards=True)

    def from_cube(self, point: npt.ArrayLike) -> Vector:
        """The vector that a point of the unit cube stands for, rounded, and projected by what rounding adds."""
        inner = self._moved(np.clip(np.asarray(point, dtype=np.float64), 0.0, 1.0), outwards=False)
        return self.project([float(d) for d in self.low + self._span * inner])

    @property
    def _span(self) -> float:
        return max(self.high - self.low, 1.0 / STEPS)  # one vector alone: any span does

    def _moved(self, point: Floats, *, outwards: bool) -> Floats:
        """A point along its ray from the cut cube to the whole one, or back."""
        weights = np.array(self.weights, dtype=np.float64)
        room = (self.limit - self.low * self.total) / self._span
        in_cube = float(point.max(initial=0.0))
        used = float(weights @ point) / room if room > 0 else math.inf
        in_cut = max(in_cube, used)
        if in_cube <= 0.0 or in_cut == in_cube:
            return np.clip(point, 0.0, 1.0)
        factor = in_cut / in_cube if outwards else in_cube / in_cut
        return np.clip(point * factor, 0.0, 1.0)


def rounded(density: float) -> float:
    """The nearest density that a vector can have: the shortest decimal, so that files and hashes agree on it."""
    return round(density * STEPS) / STEPS
