"""Adjusted p-values for a table of tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue
from sparseflow.stats.arrays import Floats, vector


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm 1979, Scand. J. Statist. 6:65-70: adjusted p-values that hold the family-wise error rate.

    With p_(1) <= ... <= p_(m): max over j <= i of min(1, (m - j + 1) p_(j)).

    Args:
        p_values: shape (cells,); NaN marks a cell not yet run: it stays NaN and does not count towards m.

    Raises:
        BadValue: no cells, or a p-value outside [0, 1].
    """
    p = _checked(p_values)
    order, m = _ascending(p)
    p[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(m, 0, -1)))
    return p


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """Benjamini & Hochberg 1995, JRSS B 57:289-300: adjusted p-values that hold the false discovery rate.

    With p_(1) <= ... <= p_(m): min over j >= i of min(1, m p_(j) / j).

    Args:
        p_values: shape (cells,); NaN marks a cell not yet run: it stays NaN and does not count towards m.

    Raises:
        BadValue: no cells, or a p-value outside [0, 1].
    """
    p = _checked(p_values)
    order, m = _ascending(p)
    stepped = p[order] * (m / np.arange(1, m + 1))
    p[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return p


def _checked(p_values: npt.ArrayLike) -> Floats:
    p = vector("p-values", p_values)
    outside = p[(p < 0) | (p > 1)]
    if outside.size:
        raise BadValue(f"p-values must be in [0, 1] or NaN, got {outside[0]:g}")
    return p


def _ascending(p: Floats) -> tuple[npt.NDArray[np.intp], int]:
    """Positions of the m cells that are not NaN, by ascending p, and m."""
    m = int((~np.isnan(p)).sum())
    return np.argsort(p, kind="stable")[:m], m  # NaN sorts last
