"""The report of straight paths: loss and accuracy from starts and ends to a target (004 Fig. 5c, 5f, 9c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from sparseflow.core import BadStore
from sparseflow.report.analysed import write_analysis
from sparseflow.report.blocks import Figure, Section, Table, write_csv
from sparseflow.report.figures import COLOURS, look, panels, save
from sparseflow.report.formats import spread_text
from sparseflow.study import Loaded, Way

INTERPOLATE_HEADER = ("from", "moment", "n", "loss at 0", "highest loss", "at alpha", "barrier", "accuracy at 0")

CONFIDENCE = 0.8
"""Of the bands, as in 004 Fig. 5."""

_CAPTION = (
    "Loss on the straight path from each network (alpha 0) to the target (alpha 1); mean ± standard deviation over the "
    "networks of a group (n). Barrier: the most by which the loss lies above the line between those of the ends; the "
    "highest loss is that of the mean path."
)

Lines = Mapping[tuple[str, str], Sequence[Way]]


def write_interpolate_report(
    folder: Path, found: Sequence[Way], target: Loaded, nets: Sequence[Loaded], settings: Mapping[str, Any]
) -> Path:
    """Write `interpolate.csv`, `report.html` and `figures/`; returns the path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    header = ["network", "group", "moment", "alpha", "loss", "accuracy"]
    rows: list[list[object]] = []
    for way in found:
        accuracies = way.path.accuracies or (None,) * len(way.path.alphas)
        points = zip(way.path.alphas, way.path.losses, accuracies, strict=True)
        rows += [[way.label, way.group, way.moment, *point] for point in points]
    try:
        write_csv(folder / "interpolate.csv", header, rows)
        figure = interpolate_figure(found, target.label, folder / "figures", (header, rows))
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    table = Table("Paths", _CAPTION, INTERPOLATE_HEADER, list(interpolate_cells(found)), labels=2)
    which = "test" if settings["which"] == "test" else "training"
    statistics = "taken anew at every point" if settings["batch_norm"] == "recompute" else "interpolated"
    subtitle = f"{found[0].examples:,} {which} examples; statistics of batch normalisation {statistics}"
    sections = [Section("Loss on the way", [table, figure])]
    return write_analysis(folder, f"Paths to {target.label}", subtitle, sections, nets, settings)


def interpolate_cells(found: Sequence[Way]) -> Iterable[list[str]]:
    """A row for each group and moment, under `INTERPOLATE_HEADER`, as text."""
    for (group, moment), ways in _lines(found).items():
        mean = [fmean(values) for values in zip(*(way.path.losses for way in ways), strict=True)]
        highest = max(range(len(mean)), key=mean.__getitem__)
        barriers = [way.barrier for way in ways if way.barrier is not None]
        alphas = ways[0].path.alphas
        start = alphas.index(0.0) if 0.0 in alphas else None
        accuracies = [way.path.accuracies[start] for way in ways if start is not None and way.path.accuracies]
        yield [
            group,
            moment,
            str(len(ways)),
            "–" if start is None else _spread([way.path.losses[start] for way in ways], 4),
            f"{mean[highest]:.4f}",
            f"{alphas[highest]:g}",
            _spread(barriers, 4) if barriers else "–",
            f"{_spread([100 * a for a in accuracies], 2)} %" if accuracies else "–",
        ]


def _spread(values: Sequence[float], digits: int) -> str:
    return spread_text(values, digits).rpartition(" (")[0]


def _lines(found: Sequence[Way]) -> Lines:
    """(group, moment) -> its paths."""
    lines: dict[tuple[str, str], list[Way]] = {}
    for way in found:
        lines.setdefault((way.group, way.moment), []).append(way)
    return lines


def interpolate_figure(
    found: Sequence[Way],
    target: str,
    folder: Path,
    numbers: tuple[Sequence[str], Sequence[Sequence[object]]],
    name: str = "interpolate",
) -> Figure:
    """Mean loss and accuracy of each group, from the end (solid) and from the start (dashed), with intervals."""
    lines = _lines(found)
    groups = list(dict.fromkeys(group for group, _ in lines))
    with look():
        canvas, (losses, accuracies) = panels(2, width=3.9, height=3.1, share_y=False)
        for (group, moment), ways in lines.items():
            style: Any = {
                "color": COLOURS[groups.index(group) % len(COLOURS)],
                "linestyle": "-" if moment == "final" else "--",
                "label": group if moment == "final" else f"{group}, {moment}",
            }
            alphas = ways[0].path.alphas
            band(losses, alphas, [way.path.losses for way in ways], style)
            right = [[100 * a for a in way.path.accuracies] for way in ways if way.path.accuracies]
            band(accuracies, alphas, right, {**style, "label": None})
        losses.set(xlabel="alpha", ylabel="loss")
        accuracies.set(xlabel="alpha", ylabel="accuracy (%)")
        canvas.legend(loc="outside upper left", ncols=4)
        svg = save(canvas, folder, name, *numbers)
    caption = (
        f"(1 - alpha) times each network + alpha times {target} (004 Fig. 5c, f). Solid: from the end of training; "
        f"dashed: from an earlier moment. Means over a group with {100 * CONFIDENCE:.0f} % intervals (Student's t)."
    )
    return Figure(f"Paths to {target}", caption, name, svg)


def band(axis: Any, alphas: Sequence[float], each: Sequence[Sequence[float]], style: Any) -> None:
    """Draw the mean of the lines and, of several, the interval of the mean."""
    columns = list(zip(*each, strict=True))
    means = [fmean(values) for values in columns]
    axis.plot(alphas, means, **style)
    if len(each) > 1:
        reach = float(stdtrit(len(each) - 1, 0.5 + CONFIDENCE / 2)) / sqrt(len(each))
        half = [reach * stdev(values) for values in columns]
        low, high = ([m + sign * h for m, h in zip(means, half, strict=True)] for sign in (-1, 1))
        axis.fill_between(alphas, low, high, color=style["color"], alpha=0.15, linewidth=0)
