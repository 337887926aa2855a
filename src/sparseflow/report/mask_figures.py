"""Charts of masks: bars layer by layer, with names where there is room and numbers where there is not."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sparseflow.masks import Overlap
from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, look, save
from sparseflow.report.mask_layers import LayerRow, MaskSet

NAMED = 32
"""Up to so many layers have a line of their own with a name; more stand side by side with numbers."""

NUMBERS = "layer (numbers of the table below)"

ACTIVE, EFFECTIVE, DENSE, COLLAPSED, CHANCE = "#A9CCE3", COLOURS[0], "#C9C9C9", COLOURS[1], "#000000"


def density_figure(masks: MaskSet, folder: Path, name: str = "density") -> Figure:
    """Density of every layer, the effective part within it."""
    rows = masks.layers
    with look():
        canvas, axis, bars = _frame([row.label for row in rows])
        seen = [d for row in rows for d in (row.density, row.effective_density) if d]
        start = 10.0 ** (ceil(log10(min(seen, default=1.0))) - 1)
        for place, row in enumerate(rows):
            bars(place, row.density, colour=DENSE if row.dense else ACTIVE, start=start)
            if row.effective:
                bars(place, row.effective_density, colour="#8A8A8A" if row.dense else EFFECTIVE, start=start, thin=True)
            if row.collapsed:
                spot = (start * 1.12, place) if len(rows) <= NAMED else (place, start * 1.12)
                axis.plot(*spot, marker="X", color=COLLAPSED, markersize=6, clip_on=False, zorder=5)
        _scale(axis, len(rows), "density (active weights / weights)", start)
        handles: list[Any] = [Patch(color=ACTIVE, label="active")]
        if masks.paths:
            handles.append(Patch(color=EFFECTIVE, label="on a path from input to output"))
        if any(row.dense for row in rows):
            handles.append(Patch(color=DENSE, label="dense layer"))
        if any(row.collapsed for row in rows):
            handles.append(Line2D([], [], marker="X", linestyle="", color=COLLAPSED, label="collapsed"))
        canvas.legend(handles=handles, loc="outside upper left", ncols=4)
        header = [
            "number",
            "layer",
            "weights",
            "active",
            "density",
            "effective",
            "effective_density",
            "dead",
            "unreachable",
        ]
        data = [[k, *_numbers(row)] for k, row in enumerate(rows, start=1)]
        svg = save(canvas, folder, name, header, data)
    caption = "Active weights of each layer as a part of its weights, logarithmic"
    caption += "; dark: those that lie on a path from an input to an output." if masks.paths else "."
    return Figure(f"Density of every layer, {masks.label}", caption, name, svg)


def overlap_figure(layers: dict[str, Overlap], first: str, second: str, folder: Path, name: str = "overlap") -> Figure:
    """The part of the first mask that is in the second, beside what chance gives."""
    with look():
        canvas, axis, bars = _frame([layer.removesuffix(".weight") for layer in layers])
        reach: list[float] = []
        for place, part in enumerate(layers.values()):
            bars(place, part.share_of_first, colour=COLOURS[0], start=0.0)
            spread = 2 * part.deviation / part.first if part.first else 0.0
            ends = [max(0.0, part.expected_share_of_first - spread), min(1.0, part.expected_share_of_first + spread)]
            reach += [part.share_of_first, ends[1]]
            middle, line = [part.expected_share_of_first], [place, place]
            if len(layers) <= NAMED:
                axis.plot(ends, line, color=CHANCE, linewidth=1.2)
                axis.plot(middle, [place], "|", color=CHANCE, markersize=11, markeredgewidth=1.6)
            else:
                axis.plot(line, ends, color=CHANCE, linewidth=1.2)
                axis.plot([place], middle, "_", color=CHANCE, markersize=5, markeredgewidth=1.4)
        label, top = "part of the first mask in the second", 1.1 * max(reach, default=1.0)
        if len(layers) <= NAMED:
            axis.set(xlim=(0, min(1.0, top)), xlabel=label)
        else:
            axis.set(ylim=(0, min(1.0, top)), ylabel=label, xlabel=NUMBERS)
        handles = [
            Patch(color=COLOURS[0], label="overlap"),
            Line2D([], [], color=CHANCE, label="random masks of the same numbers, mean ± 2 sd"),
        ]
        canvas.legend(handles=handles, loc="outside upper left", ncols=2)
        header = ["layer", "weights", "first", "second", "both", "jaccard", "share_of_first", "expected", "deviation"]
        data: list[list[object]] = [
            [n, p.weights, p.first, p.second, p.both, p.jaccard, p.share_of_first, p.expected, p.deviation]
            for n, p in layers.items()
        ]
        svg = save(canvas, folder, name, header, data)
    caption = (
        f"Active weights of {first} that are active in {second} too, as a part of the former; black: what uniformly "
        "random masks with the same number of active weights in each layer would share."
    )
    return Figure("Overlap layer by layer", caption, name, svg)


def _frame(labels: Sequence[str]) -> tuple[Canvas, Any, Any]:
    """A figure with a place for every layer, and what draws a bar in one."""
    few = len(labels) <= NAMED
    size = (8.4, 0.9 + 0.23 * len(labels)) if few else (10.4, 3.3)
    canvas = Canvas(figsize=size, layout="constrained")
    axis = canvas.subplots()
    if few:
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
    else:
        steps = [k for k in range(len(labels)) if k == 0 or (k + 1) % 10 == 0]
        axis.set_xticks(steps, [str(k + 1) for k in steps])
        axis.set_xlim(-0.7, len(labels) - 0.3)
        axis.grid(visible=False, axis="x")

    def bar(place: int, length: float, *, colour: str, start: float, thin: bool = False) -> None:
        beyond, width = max(0.0, length - start), 0.42 if thin else 0.78
        if few:
            axis.barh(place, beyond, width, left=start, color=colour)
        else:
            axis.bar(place, beyond, width, bottom=start, color=colour)

    return canvas, axis, bar


def _scale(axis: Any, count: int, label: str, start: float) -> None:
    if count <= NAMED:
        axis.set(xscale="log", xlim=(start, 1.0), xlabel=label)
    else:
        axis.set(yscale="log", ylim=(start, 1.0), ylabel="density", xlabel=NUMBERS)


def _numbers(row: LayerRow) -> list[object]:
    return [
        row.name, row.weights, row.active, row.density, row.effective, row.effective_density, row.dead, row.unreachable
    ]  # fmt: skip
