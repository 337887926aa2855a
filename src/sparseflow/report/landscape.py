"""The report of landscapes: lines over each other, or a map of each network (003 Fig. 8, 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from sparseflow.core import BadStore
from sparseflow.report.analysed import write_analysis
from sparseflow.report.blocks import Section, Table, write_csv
from sparseflow.report.landscape_figures import line_figure, map_figure
from sparseflow.study import Loaded, Terrain

LANDSCAPE_HEADER = ("network", "loss at 0", "lowest", "highest", "mean at the border", "rise", "top eigenvalue")

_DIRECTIONS = {
    "eigenvector": "the top eigenvector of the Hessian over the active weights, of length 1, on the side to which the "
    "training loss rises (003 Fig. 8): distances are Euclidean in the active weights",
    "random": "a random direction of the active weights, each filter's of the norm of the filter (Li et al. 2018)",
    "plane": "two random directions of the active weights, each filter's of the norm of the filter (Li et al. 2018)",
    "input": "each example's own loss gradient (x) and a random direction orthogonal to it (y), both of length 1 in "
    "the normalised inputs (003 Fig. 10, which names no scale)",
}


def write_landscape_report(
    folder: Path, found: Sequence[Terrain], nets: Sequence[Loaded], settings: Mapping[str, Any]
) -> Path:
    """Write `landscape.csv`, `report.html` and `figures/`; returns the path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    view = str(settings["view"])
    header = ["network", "x", "y", "loss"]
    rows: list[list[object]] = [
        [one.label, x, y, loss]
        for one in found
        for x, losses in zip(one.xs, one.losses, strict=True)
        for y, loss in zip(one.ys, losses, strict=True)
    ]
    draw = map_figure if len(found[0].ys) > 1 else line_figure
    try:
        write_csv(folder / "landscape.csv", header, rows)
        figure = draw(found, _DIRECTIONS[view], folder / "figures", (header, rows))
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    caption = f"Along {_DIRECTIONS[view]}. Rise: the mean at the border less the loss at distance 0."
    if flat := [f"{one.flat} of {one.label}" for one in found if one.flat]:
        caption += f" Left out, for want of a gradient: {', '.join(flat)}."
    table = Table("Loss around the networks", caption, LANDSCAPE_HEADER, list(landscape_cells(found)))
    which = "test" if settings["which"] == "test" else "training"
    subtitle = f"{max(one.examples for one in found):,} {which} examples; view {view}"
    title = f"Landscape: {', '.join(one.label for one in found)}"
    return write_analysis(folder, title, subtitle, [Section("The landscape", [table, figure])], nets, settings)


def landscape_cells(found: Iterable[Terrain]) -> Iterable[list[str]]:
    """A row for each network, under `LANDSCAPE_HEADER`, as text."""
    for one in found:
        every = [loss for row in one.losses for loss in row]
        centre, border = at_centre(one), at_border(one)
        yield [
            one.label,
            "–" if centre is None else f"{centre:.4g}",
            f"{min(every):.4g}",
            f"{max(every):.4g}",
            f"{border:.4g}",
            "–" if centre is None or not isfinite(border) else f"{border - centre:.4g}",
            "–" if one.eigenvalue is None else f"{one.eigenvalue:.4g}",
        ]


def at_centre(one: Terrain) -> float | None:
    """The loss of the network itself; None where it was not among the distances."""
    if 0.0 not in one.xs or 0.0 not in one.ys:
        return None
    return one.losses[one.xs.index(0.0)][one.ys.index(0.0)]


def at_border(one: Terrain) -> float:
    """The mean loss at the outermost distances."""
    if len(one.ys) == 1:
        return fmean((one.losses[0][0], one.losses[-1][0]))
    sides = [loss for row in one.losses[1:-1] for loss in (row[0], row[-1])]
    return fmean([*one.losses[0], *one.losses[-1], *sides])
