"""Mean, standard deviation and count: what a table prints as "mean +/- std (n)"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparseflow.stats.arrays import vector


@dataclass(frozen=True)
class Summary:
    """In the unit of the values; std is the sample standard deviation, nan for n = 1."""

    mean: float
    std: float
    n: int


def summary(values: npt.ArrayLike) -> Summary:
    """Mean, sample standard deviation (divisor n - 1) and count of values of shape (n,).

    Nothing is ignored: one NaN makes mean and std NaN, an infinity makes std NaN; n counts them all.

    Raises:
        BadValue: no values.
    """
    x = vector("values", values)
    with np.errstate(invalid="ignore"):  # inf - inf is the nan promised above
        std = float(x.std(ddof=1)) if x.size > 1 else math.nan
        return Summary(float(x.mean()), std, x.size)
