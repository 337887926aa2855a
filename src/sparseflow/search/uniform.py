"""Vectors drawn uniformly among all those of a space that obey its bounds."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
import torch

from sparseflow.core import BadValue
from sparseflow.search.space import STEPS, Floats, Space, Vector

_PROPOSALS = 128  # drawn at a time
_MOST = 500  # times, before the space counts as having no room


def draw(space: Space, generator: torch.Generator, taken: Collection[Vector] = ()) -> Vector:
    """One vector, each that obeys and is not taken with the same probability.

    Under a small bound on the total nearly no vector of the box obeys, so the box is not drawn from uniformly but with
    probability proportional to exp(-rate * n.d), n.d = sum_i n_i d_i, which is a product over layers. A vector that
    obeys is accepted with probability exp(rate * (n.d - most)), where most >= n.d for all that obey; the product of
    both is the same for each of them. This holds for any rate >= 0; the one taken makes the mean of n.d equal `most`,
    and accepts about 1 of sqrt(2 pi L) proposals for L layers and a small bound.

    Exact on the grid of decimals, not only in the limit: a density is drawn from an exponential over cells of equal
    width around the grid's points, whose masses have the ratio of the exponential at the points.

    Raises:
        BadValue: if all is taken, or the bounds leave too little to find.
    """
    first, last = round(space.low * STEPS), round(space.high * STEPS)
    points = last - first + 1
    weights = np.array(space.weights, dtype=np.float64)
    # Rounding gives a layer at most half a weight less than n * d, so n.d of what obeys is at most:
    most = space.limit + 0.5 * len(space.sizes)
    widths = weights * (points / STEPS)
    rate = _rate(tuple(widths), most - (first - 0.5) / STEPS * weights.sum())
    for _ in range(_MOST):
        uniform = torch.rand((_PROPOSALS, space.dimensions + 1), generator=generator, dtype=torch.float64).numpy()
        cells = np.floor(_exponential(uniform[:, :-1], rate * widths) * points).astype(np.int64)
        steps = first + np.minimum(cells, points - 1)
        spent = steps @ weights / STEPS
        with np.errstate(over="ignore"):  # beyond `most` nothing obeys
            accepted = uniform[:, -1] < np.exp(rate * (spent - most))
        for row in steps[accepted]:
            vector = tuple(int(step) / STEPS for step in row)
            if vector not in taken and space.obeys(vector):
                return vector
    bound = "" if space.max_density is None else f" and max_density {space.max_density:g}"
    raise BadValue(
        f"found no vector between {space.low:g} and {space.high:g}{bound} that is not taken "
        f"({len(taken)} are); give wider bounds or fewer samples"
    )


def _exponential(uniform: Floats, rates: Floats) -> Floats:
    """Uniform numbers in [0, 1) as draws from the densities proportional to exp(-rate x) on [0, 1)."""
    safe = np.where(rates > 0, rates, 1.0)
    return np.where(rates > 0, -np.log1p(uniform * np.expm1(-safe)) / safe, uniform)


@lru_cache(maxsize=16)
def _rate(widths: tuple[float, ...], room: float) -> float:
    """The rate at which draws on [0, width_i), densities proportional to exp(-rate * x), sum to `room` on average.

    0 where the uniform mean is below it anyway.
    """
    if 0.5 * sum(widths) <= room:
        return 0.0
    sizes = np.array(widths)
    low, high = 0.0, len(widths) / room  # the mean of each is below 1 / rate
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean(middle * sizes) @ sizes > room else (low, middle)
    return high


def _mean(rates: Floats) -> Floats:
    """Mean of the density proportional to exp(-rate x) on [0, 1]."""
    safe = np.clip(rates, 1e-3, 700.0)  # beyond, the second term is nothing
    return np.where(rates < 1e-3, 0.5 - rates / 12, 1 / np.maximum(rates, safe) - 1 / np.expm1(safe))
