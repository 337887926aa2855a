"""All eigenvalues, exactly, and a spectrum as a smooth density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadValue
from sparseflow.measure.curvature.hessian import Hessian

Floats = npt.NDArray[np.float64]

WIDTH = 0.01
"""Of a Gaussian, as a part of the range of the eigenvalues, where no width is given."""


@dataclass(frozen=True)
class Density:
    """The share of eigenvalues per unit of eigenvalue, smoothed: a Gaussian of width `width` for each.

    Attributes:
        at: (points,) eigenvalues.
        values: (points,) density; its integral is 1, that of `values * size` the number of eigenvalues.
        errors: (points,) standard error of the values over probes; None where all eigenvalues are known, nan for one
            probe.
    """

    at: Floats
    values: Floats
    width: float
    errors: Floats | None = None


def spectrum(hessian: Hessian, progress: Callable[[int, int], None] = lambda done, size: None) -> Floats:
    """All eigenvalues, rising, from the whole matrix (004 app. B): as many products as active weights.

    Returns:
        (size,), float64; their errors are of the order of the dtype's rounding times the norm of H.
    """
    found: Floats = np.linalg.eigvalsh(hessian.exact(progress).double().cpu().numpy())
    return found


def density(eigenvalues: npt.ArrayLike, *, at: npt.ArrayLike | None = None, width: float | None = None) -> Density:
    """The smoothed density of known eigenvalues (004 Fig. 10, as Ghorbani et al. 2019, sec. 2).

    Args:
        eigenvalues: (size,).
        at: (points,); 400 from four widths below the smallest to four above the largest by default.
        width: standard deviation of the Gaussians; a hundredth of the range of the eigenvalues by default.

    Raises:
        BadValue: without eigenvalues, or for a width that is not positive.
    """
    values = np.asarray(eigenvalues, dtype=np.float64).reshape(-1)
    at, width = grid(values, at, width)
    return Density(at, smoothed(values, np.full(len(values), 1 / len(values)), at, width), width)


def distance(first: Density, second: Density) -> float:
    """The integral of |first - second|: 0 for equal densities, 2 for such as do not overlap.

    It depends on the widths: smoothing hides what is finer.

    Raises:
        BadValue: for densities at other points.
    """
    if not np.array_equal(first.at, second.at):
        raise BadValue("the densities are of different points; give both the same at=")
    from scipy.integrate import trapezoid  # a third of a second to import, which a worker that trains need not pay

    return float(trapezoid(np.abs(first.values - second.values), first.at))


def grid(values: Floats, at: npt.ArrayLike | None, width: float | None) -> tuple[Floats, float]:
    """Points and width of a density, as asked for or by default."""
    if not len(values):
        raise BadValue("there are no eigenvalues to make a density of")
    low, high = float(values.min()), float(values.max())
    if width is None:
        # A spectrum of one point has no range to take a part of.
        width = WIDTH * ((high - low) or abs(high) or 1.0)
    if not width > 0:
        raise BadValue(f"width must be positive, got {width:g}")
    if at is None:
        at = np.linspace(low - 4 * width, high + 4 * width, 400)
    return np.asarray(at, dtype=np.float64).reshape(-1), width


def smoothed(nodes: Floats, weights: Floats, at: Floats, width: float) -> Floats:
    """sum_k weights_k N(at; nodes_k, width^2), (points,)."""
    found = np.zeros(len(at))
    for some in np.array_split(np.arange(len(nodes)), 1 + len(nodes) // 256):  # not points x nodes at once
        bells = np.exp(-0.5 * ((at[:, None] - nodes[None, some]) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        found += bells @ weights[some]
    return found
