"""Figures of landscapes: losses along a line, and maps of the loss over a plane."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, look, panels, save
from sparseflow.study import Terrain

Numbers = tuple[Sequence[str], Sequence[Sequence[object]]]

LEVELS = 24
ACROSS = 3
"""Maps side by side."""


def line_figure(
    found: Sequence[Terrain], along: str, folder: Path, numbers: Numbers, name: str = "landscape"
) -> Figure:
    """The losses of every network along its own direction."""
    with look():
        canvas, (axis,) = panels(1, width=5.6, height=3.2)
        for k, one in enumerate(found):
            axis.plot(one.xs, [row[0] for row in one.losses], color=COLOURS[k % len(COLOURS)], label=one.label)
        axis.axvline(0.0, color="#888888", linewidth=0.7, zorder=1)
        axis.set(xlabel="distance", ylabel="loss")
        canvas.legend(loc="outside upper left", ncols=4)
        svg = save(canvas, folder, name, *numbers)
    return Figure("Loss along a line", f"Along {along}.", name, svg)


def map_figure(found: Sequence[Terrain], along: str, folder: Path, numbers: Numbers, name: str = "landscape") -> Figure:
    """The loss over a plane, a map for each network; all maps have the same colours for the same loss."""
    every = np.array([one.losses for one in found])
    low, high = float(np.nanmin(every)), float(np.nanmax(every[np.isfinite(every)]))
    # Losses far from the network are many times those near it: even steps of the logarithm show both.
    levels = np.geomspace(max(low, 1e-6), max(high, low * 1.001, 2e-6), LEVELS)
    columns = min(ACROSS, len(found))
    with look():
        canvas = Canvas(figsize=(3.2 * columns + 0.9, 3.0 * ceil(len(found) / columns)), layout="constrained")
        axes = list(canvas.subplots(ceil(len(found) / columns), columns, squeeze=False).flat)
        for axis, one in zip(axes[: len(found)], found, strict=True):
            z = np.clip(np.array(one.losses).T, levels[0], levels[-1])
            shown = axis.contourf(one.xs, one.ys, z, levels=levels, norm="log", cmap="viridis")
            axis.contour(one.xs, one.ys, z, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
            axis.plot(0.0, 0.0, marker="+", color="white", markersize=7)
            axis.set(title=one.label, xlabel="x", ylabel="y", aspect="equal")
            axis.grid(visible=False)
        for axis in axes[len(found) :]:
            axis.remove()
        ticks = levels[:: max(1, LEVELS // 8)]
        bar = canvas.colorbar(shown, ax=axes[: len(found)], label="loss", ticks=ticks)
        bar.ax.set_yticklabels([f"{tick:.3g}" for tick in ticks])
        bar.ax.minorticks_off()
        svg = save(canvas, folder, name, *numbers)
    return Figure("Maps of the loss", f"Over {along}. Colours are even in the loss's logarithm.", name, svg)
