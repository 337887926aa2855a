"""Figures of Hessians: densities of eigenvalues over each other, and the ends of the spectra (004 Fig. 10, 11)."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from sparseflow.measure import curvature
from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, MARKERS, look, panels, save
from sparseflow.study import Curved

POINTS = 600
ERRORS = 2.0
"""The band goes so many standard errors to either side."""


def spectrum_figure(found: Sequence[Curved], folder: Path, name: str = "spectrum") -> Figure:
    """The smoothed density of the eigenvalues of every network, on one axis and by one width."""
    at, width = _grid(found)
    # A tenth of the height that a single eigenvalue of the largest network has.
    floor = 0.1 / (max(one.size for one in found) * width * sqrt(2 * pi))
    highest = 0.0
    rows: list[list[object]] = []
    with look():
        canvas, (axis,) = panels(1, width=6.6, height=3.4)
        for k, one in enumerate(found):
            colour = COLOURS[k % len(COLOURS)]
            if one.quadrature is not None:
                density = one.quadrature.density(at=at, width=width)
                errors = density.errors if density.errors is not None else np.full(len(at), np.nan)
                axis.plot(at, np.maximum(density.values, floor / 10), color=colour)
                low, high = density.values - ERRORS * errors, density.values + ERRORS * errors
                axis.fill_between(at, np.maximum(low, floor / 10), high, color=colour, alpha=0.2, linewidth=0)
                highest = max(highest, float(np.nanmax(np.append(high, density.values))))
                values = zip(at, density.values, errors, strict=True)
                rows += [[one.label, "quadrature", width, *map(float, three)] for three in values]
            if one.eigenvalues is not None:
                exact = curvature.density(one.eigenvalues, at=at, width=width)
                both = one.quadrature is not None
                style = {"color": "black" if both and len(found) == 1 else colour, "linestyle": "--" if both else "-"}
                axis.plot(at, np.maximum(exact.values, floor / 10), **style)
                highest = max(highest, float(exact.values.max()))
                pairs = zip(at, exact.values, strict=True)
                rows += [[one.label, "exact", width, float(x), float(y), None] for x, y in pairs]
        axis.set(yscale="log", ylim=(floor, 2 * highest), xlabel="eigenvalue", ylabel="density")
        axis.axvline(0.0, color="#888888", linewidth=0.7, zorder=1)
        handles = [Line2D([], [], color=COLOURS[k % len(COLOURS)], label=one.label) for k, one in enumerate(found)]
        if any(one.quadrature is not None and one.eigenvalues is not None for one in found):
            colour = "black" if len(found) == 1 else "#555555"
            handles.append(Line2D([], [], color=colour, linestyle="--", label="exact"))
        canvas.legend(handles=handles, loc="outside upper left", ncols=3)
        svg = save(canvas, folder, name, ["network", "by", "width", "eigenvalue", "density", "error"], rows)
    caption = (
        f"The share of eigenvalues per unit of eigenvalue, smoothed by Gaussians of width {width:.3g} (004 Fig. 10). "
        f"Lines with bands: stochastic Lanczos quadrature, ± {ERRORS:g} standard errors over probes; dashed where "
        "there is a line already, else alone: all eigenvalues. A single eigenvalue reaches a little above the axis."
    )
    return Figure("Density of the Hessian's eigenvalues", caption, name, svg)


def ends_figure(found: Sequence[Curved], folder: Path, name: str = "ends") -> Figure:
    """The outermost eigenvalues of every network, in their order, and the gradient's alignment with their vectors."""
    rows: list[list[object]] = []
    ends = [label for label in ("top", "bottom") if any(getattr(one, label) for one in found)]
    with look():
        canvas, axes = panels(len(ends) + 1, height=2.8, share_y=False)
        for axis, end in zip(axes[:-1], ends, strict=True):
            for k, one in enumerate(found):
                pairs = getattr(one, end)
                places = range(1, len(pairs) + 1)
                style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
                axis.plot(places, [pair.value for pair in pairs], **style)
                shift = 0.0 if end == "top" else 0.5 + max(len(other.top) for other in found)
                axes[-1].plot([p + shift for p in places], [pair.cosine**2 for pair in pairs], linestyle="", **style)
                rows += [[one.label, end, n, p.value, p.residual, p.cosine] for n, p in zip(places, pairs, strict=True)]
            longest = max(len(getattr(one, end)) for one in found)
            axis.set(title=f"{'largest' if end == 'top' else 'smallest'} eigenvalues", xlabel="number")
            axis.set_xticks(range(1, longest + 1))
            axis.axhline(0.0, color="#888888", linewidth=0.7, zorder=1)
        _name_places(axes[-1], found)
        handles = [
            Line2D([], [], color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], label=one.label)
            for k, one in enumerate(found)
        ]
        canvas.legend(handles=handles, loc="outside upper left", ncols=3)
        svg = save(canvas, folder, name, ["network", "end", "number", "eigenvalue", "residual", "cosine"], rows)
    caption = (
        "The outermost eigenvalues in their order (004 Fig. 11), and the squared cosine of the loss gradient with each "
        "one's eigenvector: the share of g'g along it."
    )
    return Figure("Ends of the spectrum", caption, name, svg)


def _name_places(axis: object, found: Sequence[Curved]) -> None:
    top, bottom = max(len(one.top) for one in found), max(len(one.bottom) for one in found)
    places = [*range(1, top + 1), *(k + 0.5 + top for k in range(1, bottom + 1))]
    names = [f"+{k}" for k in range(1, top + 1)] + [f"−{k}" for k in range(1, bottom + 1)]
    axis.set(title="share of the gradient", xlabel="+ largest, − smallest", ylim=(0, None))  # type: ignore[attr-defined]
    axis.set_xticks(places, names)  # type: ignore[attr-defined]


def _grid(found: Sequence[Curved]) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Points and a width that all densities share: a hundredth of the range of all eigenvalues."""
    known = [*(one.eigenvalues for one in found if one.eigenvalues is not None)]
    known += [nodes for one in found if one.quadrature is not None for nodes in one.quadrature.nodes]
    low, high = min(float(v.min()) for v in known), max(float(v.max()) for v in known)
    width = 0.01 * ((high - low) or abs(high) or 1.0)
    return np.linspace(low - 5 * width, high + 5 * width, POINTS), width
