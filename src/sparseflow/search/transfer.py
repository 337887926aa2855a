"""A density vector carried to a network of another depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparseflow.core import BadValue, check_fraction, check_positive
from sparseflow.search.space import Vector, rounded


def to_depth(vector: Sequence[float], layers: int) -> Vector:
    """The vector for so many layers: densities as a function of relative depth, linear between the layers given.

    The first layer stays the first and the last the last; they are the ones whose task does not change with depth. The
    same number of layers gives the same vector, one density is a density for all, and one layer gets the mean. A
    bound on the total is about sizes that this function does not know: `Space.project` the result.

    Raises:
        BadValue: for no layers or densities, or a density outside (0, 1].
    """
    check_positive("layers", layers)
    if not vector:
        raise BadValue("a vector to transfer has at least one density, got none")
    known = [check_fraction(f"density {k}", d) for k, d in enumerate(vector)]
    if layers == 1:
        return (rounded(float(np.mean(known))),)
    found = np.interp(np.linspace(0.0, 1.0, layers), np.linspace(0.0, 1.0, len(known)), known)
    return tuple(rounded(float(d)) for d in found)
