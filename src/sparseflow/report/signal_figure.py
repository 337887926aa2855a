"""The figure of a signal propagation (004 Fig. 1c): output deviation and dead units against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from sparseflow.measure import DENSE, Point
from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, MARKERS, look, panels, save

TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
LOW, HIGH = 0.1, 0.9
"""The band goes from this quantile of the networks to that one."""


def signal_figure(points: Sequence[Point], folder: Path, name: str = "signal") -> Figure:
    """Deviation of the outputs, the same in parts of the dense network's, and the shares of dead units."""
    dense = next(point for point in points if (point.initialisation, point.density) == DENSE)
    methods = list(dict.fromkeys(point.initialisation for point in points))
    with look():
        canvas, (absolute, relative, units) = panels(3, height=2.9, share_y=False)
        for k, method in enumerate(methods):
            own = sorted((p for p in points if p.initialisation == method), key=lambda p: p.density)
            style: Any = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            _deviation(absolute, own, 1.0, style)
            if dense.rms:
                _deviation(relative, own, dense.rms, style)
            x = [p.density for p in own]
            units.plot(x, [100 * p.dead for p in own], **style)
            units.plot(x, [100 * p.unreached for p in own], linestyle=":", **style, markerfacecolor="white")
        relative.axhline(1.0, color="black", linewidth=0.8, linestyle="--", zorder=1)
        absolute.set(yscale="log", ylabel="output deviation")
        relative.set(ylim=(0, None), ylabel="relative to the dense network")
        units.set(ylim=(0, None), ylabel="units (%)")
        for axis in (absolute, relative, units):
            _sparsities(axis, [point.density for point in points])
        handles = [
            Line2D([], [], color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], label=method)
            for k, method in enumerate(methods)
        ]
        canvas.legend(handles=handles, loc="outside upper left", ncols=len(handles))
        kinds = [
            Line2D([], [], color="#555555", label="dead units"),
            Line2D([], [], color="#555555", linestyle=":", label="of these: nothing reaches them"),
        ]
        canvas.legend(handles=kinds, loc="outside upper right", ncols=2)
        svg = save(canvas, folder, name, *signal_rows(points))
    caption = (
        "Standard deviation of the outputs (before softmax) of the untrained network for standard normal inputs, "
        "against the sparsity of its random masks. Lines: root of the mean square over draws of masks and weights, "
        f"bars: its standard error; bands: {100 * LOW:.0f} to {100 * HIGH:.0f} % of the draws. Dead units are those "
        "through which nothing goes from any of the inputs to an output. The axis is logarithmic in the density."
    )
    return Figure("Signal propagation at the start", caption, name, svg)


def signal_rows(points: Sequence[Point]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of the figure's numbers."""
    dense = next(point for point in points if (point.initialisation, point.density) == DENSE)
    header = [
        *("initialisation", "density", "sparsity", "draws", "rms", "rms_error", "low", "median", "high"),
        *("relative", "relative_error", "relative_low", "relative_high", "unreached", "dead", "smallest_fan_in"),
    ]
    rows: list[list[object]] = []
    for p in points:
        low, median, high = (p.quantile(q) for q in (LOW, 0.5, HIGH))
        parts = [*p.relative_to(dense), *(value / dense.rms if dense.rms else nan for value in (low, high))]
        known = [p.initialisation, p.density, 1 - p.density, len(p.draws), p.rms, p.error, low, median, high]
        rows.append([*known, *parts, p.unreached, p.dead, p.fan_in])
    return header, rows


def _deviation(axis: Any, own: Sequence[Point], unit: float, style: Any) -> None:
    x = [p.density for p in own]
    axis.fill_between(
        x,
        [p.quantile(LOW) / unit for p in own],
        [p.quantile(HIGH) / unit for p in own],
        color=style["color"],
        alpha=0.15,
        linewidth=0,
    )
    axis.errorbar(x, [p.rms / unit for p in own], yerr=[p.error / unit for p in own], elinewidth=0.8, **style)


def _sparsities(axis: Any, densities: Sequence[float]) -> None:
    """Sparsity from left to right, with room where the paper has none: beyond 90 %."""
    least = min(densities)
    axis.set(xscale="log", xlim=(1.08, least / 1.08), xlabel="sparsity (%)")
    ticks = [tick for tick in TICKS if tick >= least / 1.001]
    axis.set_xticks(ticks, [f"{100 * (1 - tick):.4g}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
