"""Figures of likeness: networks embedded in a plane, and their distances to the reference (004 Fig. 5a,b,d,e)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, MARKERS, look, panels, save
from sparseflow.study import Likeness


def embedding_figure(found: Likeness, folder: Path, name: str = "embedding") -> Figure:
    """Every network at its start (open) and its end (filled), a line from one to the other."""
    groups = [row.group for row in found.rows]
    rows = [[p.label, p.group, p.moment, p.x, p.y, p.distance] for p in found.places]
    with look():
        canvas, (axis,) = panels(1, width=5.6, height=4.2)
        ends = {place.label: place for place in found.places if place.moment == "final"}
        for place in found.places:
            end = ends.get(place.label.removesuffix("#start"), place)
            style = _REFERENCE if end.label == found.reference else _style(groups, place.group)
            fill = style["color"] if place.moment == "final" else "white"
            axis.plot(place.x, place.y, **style, markerfacecolor=fill, linestyle="", zorder=3)
            axis.plot([place.x, end.x], [place.y, end.y], color=style["color"], alpha=0.35, linewidth=0.9, zorder=1)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set(xlabel="first coordinate", ylabel="second coordinate")
        several = [row.group for row in found.rows if row.group != found.reference]
        handles = [Line2D([], [], linestyle="", **_REFERENCE, label=found.reference)]
        handles += [Line2D([], [], linestyle="", **_style(groups, group), label=group) for group in several]
        canvas.legend(handles=handles, loc="outside upper left", ncols=4)
        svg = save(canvas, folder, name, ["network", "group", "moment", "x", "y", "distance_to_reference"], rows)
    caption = (
        "Multi-dimensional scaling of the L2 distances (004 Fig. 5a, d), as far as a plane can show them; turn and "
        "reflection mean nothing. Filled: after training; open: before; the star: the reference."
    )
    return Figure("Networks as points", caption, name, svg)


def distance_figure(found: Likeness, folder: Path, name: str = "distances") -> Figure:
    """Mean L2 distance to the reference of each group, before and after training."""
    groups = [row.group for row in found.rows if row.start is not None or row.final is not None]
    rows = [[p.label, p.group, p.moment, p.distance] for p in found.places if p.label != found.reference]
    with look():
        canvas, (axis,) = panels(1, width=5.6, height=2.9)
        for row in found.rows:
            for shift, summary, colour in ((-0.19, row.start, "#BBBBBB"), (0.19, row.final, COLOURS[0])):
                if summary is not None:
                    spread = summary.std if summary.n > 1 else 0.0
                    at = groups.index(row.group) + shift
                    axis.bar(at, summary.mean, 0.36, color=colour, yerr=spread or None, error_kw={"elinewidth": 0.9})
        axis.set_xticks(range(len(groups)), groups)
        axis.set(ylabel=f"L2 distance to {found.reference}")
        axis.grid(visible=False, axis="x")
        handles: list[Any] = [
            Line2D([], [], linestyle="", marker="s", color="#BBBBBB", label="start"),
            Line2D([], [], linestyle="", marker="s", color=COLOURS[0], label="end"),
        ]
        canvas.legend(handles=handles, loc="outside upper left", ncols=2)
        svg = save(canvas, folder, name, ["network", "group", "moment", "distance_to_reference"], rows)
    caption = "Means over the networks of a group (004 Fig. 5b, e); bars: their standard deviation."
    return Figure("Distance to the reference", caption, name, svg)


_REFERENCE: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 11}


def _style(groups: list[str], group: str) -> dict[str, Any]:
    k = groups.index(group)
    return {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
