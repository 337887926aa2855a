"""Kendall's rank correlation and its average size over configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue
from sparseflow.stats.arrays import vector

_FEWEST_POINTS = 3  # two points always have tau = +-1


@dataclass(frozen=True)
class TauAverage:
    """Mean of |tau-b| over `counted` configurations (nan if none); `constant` more had no tau and are left out."""

    mean: float
    counted: int
    constant: int


def kendall_tau(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Kendall's tau-b (Kendall 1938, Biometrika 30:81-93; 1945, 33:239-251, for ties) of two series of shape (points,).

    (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y). A point where either series is NaN or
    infinite is left out. nan if a series is constant or fewer than 3 points are left. Time O(points^2), memory
    O(points).

    Raises:
        BadValue: empty series, or series of different lengths.
    """
    x, y = vector("x", x), vector("y", y)
    if x.size != y.size:
        raise BadValue(f"x and y must have equally many points, got {x.size} and {y.size}")
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = x[usable], y[usable]
    if x.size < _FEWEST_POINTS:
        return math.nan
    balance = untied_x = untied_y = 0
    for i in range(x.size - 1):
        # Signs by comparison: a difference of large values could overflow.
        sign_x = (x[i + 1 :] > x[i]).astype(np.int64) - (x[i + 1 :] < x[i])
        sign_y = (y[i + 1 :] > y[i]).astype(np.int64) - (y[i + 1 :] < y[i])
        balance += int(sign_x @ sign_y)
        untied_x += int(np.abs(sign_x).sum())
        untied_y += int(np.abs(sign_y).sum())
    if untied_x == 0 or untied_y == 0:
        return math.nan
    return balance / math.sqrt(untied_x * untied_y)


def average_abs_tau(pairs_of_series: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> TauAverage:
    """|tau-b| of each configuration's two series, averaged over the configurations (001 Table 3.1).

    A configuration without a tau (constant series, fewer than 3 finite points) is counted in `constant`.

    Raises:
        BadValue: as `kendall_tau`.
    """
    taus = [kendall_tau(x, y) for x, y in pairs_of_series]
    sizes = [abs(tau) for tau in taus if not math.isnan(tau)]
    mean = math.fsum(sizes) / len(sizes) if sizes else math.nan
    return TauAverage(mean, len(sizes), len(taus) - len(sizes))
