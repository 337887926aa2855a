"""Checks of the arrays that the statistics take."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue

Floats = npt.NDArray[np.float64]


def vector(what: str, values: npt.ArrayLike) -> Floats:
    """`values` as a new float64 array of shape (n,), n >= 1.

    Raises:
        BadValue: if it is empty or has another number of axes.
    """
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1:
        raise BadValue(f"{what} must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        raise BadValue(f"{what} must hold at least one value, got none")
    return array


def paired_differences(values: npt.ArrayLike, resolution: float | None) -> Floats:
    """Finite differences of shape (n,), rounded to multiples of `resolution` if one is given.

    Equal multiples come out as equal floats, so that ties and zeros can be found by `==`.

    Raises:
        BadValue: if there are none, if some are NaN or infinite (it says how many), or for a resolution <= 0.
    """
    array = vector("differences", values)
    nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if nans or infinities:
        raise BadValue(
            f"differences must be finite, got {nans} NaN and {infinities} infinite of {array.size} pairs; "
            "score a failed run as chance or leave its pair out"
        )
    if resolution is None:
        return array
    if not (resolution > 0 and math.isfinite(resolution)):
        raise BadValue(f"resolution must be positive and finite (e.g. 1 / test images) or None, got {resolution:g}")
    return np.rint(array / resolution) * resolution
