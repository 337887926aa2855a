"""The loss around finished networks (003 Fig. 8 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sparseflow.measure.probes import OF_A_PRODUCT, PRODUCTS
from sparseflow.report import LANDSCAPE_HEADER, landscape_cells
from sparseflow.report.blocks import Block, Figure, Table, Text
from sparseflow.report.figures import COLOURS, look, panels, save
from sparseflow.report.landscape import at_centre
from sparseflow.report.landscape_figures import map_figure
from sparseflow.reproduce.analyses.networks import finished_runs, made_with, parts_of
from sparseflow.reproduce.analyses.registry import OF_A_LOSS, analyses
from sparseflow.reproduce.scale import Scale, at_most
from sparseflow.reproduce.source import Source
from sparseflow.study import DataCache, Look, Surroundings, Terrain, reload, terrain

_ALONG = {
    "eigenvector": "the top eigenvector of the training loss's Hessian over the active weights, of length 1, on the "
    "side to which the training loss rises; distances are Euclidean in the active weights",
    "input": "each test image's own loss gradient (x) and a random direction orthogonal to it (y), both of length 1 in "
    "the normalised inputs; the paper names no scale",
}


def _effort(options: Mapping[str, Any], scale: Scale, runs: int) -> float:
    wanted = look_of(options, scale)
    points = len(wanted.distances)
    if wanted.view == "input":
        return runs * (1 + points**2 * OF_A_LOSS) * wanted.examples
    return runs * (PRODUCTS * OF_A_PRODUCT * wanted.hessian_examples + points * OF_A_LOSS * wanted.examples)


@analyses.add("landscape", cite="003 Fig. 8, 10", effort=_effort)
def landscape(
    sources: Sequence[Source],
    options: Mapping[str, Any],
    scale: Scale,
    folder: Path,
    surroundings: Surroundings,
    progress: Callable[[int, int], None],
) -> list[Block]:
    """The loss along the Hessian's top eigenvector, or around test images, for every network.

    Options: `view`, eigenvector or input; `which` split's loss, of `examples` at most; `reach` and number of `points`
    along a direction; `hessian_examples`, of the training split. A scale bounds examples and points as elsewhere.

    Raises:
        SparseflowError: if a network was not kept.
    """
    wanted = look_of(options, scale)
    runs = finished_runs(sources)
    cache = DataCache(surroundings)
    settings = made_with(surroundings)
    found: list[Terrain] = []
    with parts_of(folder) as parts:
        for number, named in enumerate(runs):
            net = reload(named.run, cache, surroundings.device)
            found.append(terrain(net, wanted, parts, settings, partial(_tell, progress, number, len(runs))))
    if not found:
        return [Text("No run has ended yet.")]
    along = _ALONG[wanted.view]
    table = Table("Loss around the networks", f"Along {along}.", LANDSCAPE_HEADER, list(landscape_cells(found)))
    header = ["network", "x", "y", "loss"]
    rows_ = [
        [one.label, x, y, loss]
        for one in found
        for x, losses in zip(one.xs, one.losses, strict=True)
        for y, loss in zip(one.ys, losses, strict=True)
    ]
    if wanted.view == "eigenvector":
        return [change_figure(found, along, folder / "figures", wanted.which), table]
    return [map_figure(found, along, folder / "figures", (header, rows_)), table]


def _tell(progress: Callable[[int, int], None], networks: int, of: int, rows: int, each: int) -> None:
    progress(networks * each + rows, of * each)


def look_of(options: Mapping[str, Any], scale: Scale) -> Look:
    """Where to look, at a scale.

    Raises:
        ValueError: for another view.
    """
    view = options["view"]
    if view not in _ALONG:
        raise ValueError(f"view is {', '.join(_ALONG)}, got {view!r}")
    points = int(options["points"])
    if scale.points is not None:
        points = min(points, 2 * scale.points + 1)
    half = points // 2
    reach = float(options["reach"])
    which = options.get("which", "test")
    most = scale.tests if which == "test" else scale.examples
    return Look(
        view,
        tuple(reach * k / half for k in range(-half, half + 1)),
        which,
        at_most(int(options["examples"]), most),
        at_most(int(options.get("hessian_examples", 1000)), scale.examples),
    )


def change_figure(found: Sequence[Terrain], along: str, folder: Path, which: str) -> Figure:
    """How much the loss of every network changes along its own direction."""
    rows: list[list[object]] = []
    with look():
        canvas, (axis,) = panels(1, width=5.6, height=3.2)
        for k, one in enumerate(found):
            centre = at_centre(one)
            assert centre is not None  # 0 is among the distances
            changes = [row[0] - centre for row in one.losses]
            axis.plot(one.xs, changes, color=COLOURS[k % len(COLOURS)], label=one.label)
            rows += [[one.label, x, change, centre] for x, change in zip(one.xs, changes, strict=True)]
        axis.axvline(0.0, color="#888888", linewidth=0.7, zorder=1)
        axis.axhline(0.0, color="#888888", linewidth=0.7, zorder=1)
        axis.set(xlabel="distance", ylabel=f"change of the {which} loss")
        canvas.legend(loc="outside upper left", ncols=4)
        svg = save(canvas, folder, "landscape", ["network", "distance", "change", "loss_at_0"], rows)
    return Figure(f"Change of the {which} loss", f"Along {along}.", "landscape", svg)
