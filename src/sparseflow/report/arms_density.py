"""Accuracy and gradient flow against density, for crosses that end in one (001 Fig. 3.5, 3.6, A.19; 000 Fig. 3, 14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from math import ceil, isfinite, log10, nan
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sparseflow.report.arms_figures import MOST_LINES, REFERENCE_COLOUR, Material
from sparseflow.report.blocks import Figure
from sparseflow.report.compare_figures import MATH
from sparseflow.report.figures import COLOURS, MARKERS, look, save
from sparseflow.stats import summary
from sparseflow.study import ArmResult, average_over_points
from sparseflow.study.analysis import MemberResult

ACROSS = 3
"""Panels side by side."""

ROOM = 0.13
"""Between the labels of two densities at least, in tenfolds."""

Stroke = Literal["-", "--", ":", "-."]
_STROKES: tuple[Stroke, ...] = ("-", "--", ":", "-.")
_HEADER = ["panel", "line", "density", "mean", "std", "low", "high", "n"]

Of = Callable[[MemberResult], float]


@dataclass(frozen=True)
class Line:
    """A row of a cross.

    Attributes:
        entry, levels: whose it is, and its levels but for the density's.
        at: (density, the arm of that density), from few weights to many.
    """

    entry: str
    levels: Mapping[str, str]
    at: Sequence[tuple[float, ArmResult]]

    @property
    def label(self) -> str:
        return " ".join([self.entry, *self.levels.values()])

    def rest(self, axis: str | None) -> str:
        """Its levels but for the one that names its panel."""
        return " ".join(level for name, level in self.levels.items() if name != axis)


def density_lines(results: Sequence[ArmResult]) -> list[Line]:
    """The rows of crosses whose last axis is a density."""
    rows: dict[tuple[str, ...], list[ArmResult]] = {}
    for r in results:
        if r.arm.levels and list(r.arm.levels)[-1].endswith("density"):
            rows.setdefault(r.arm.place[:-1], []).append(r)
    found = []
    for row in rows.values():
        at = [(_number(r.arm.place[-1]), r) for r in row]
        if all(0.0 < density <= 1.0 for density, _ in at):
            levels = dict(list(row[0].arm.levels.items())[:-1])
            found.append(Line(row[0].arm.entry, levels, sorted(at, key=lambda pair: pair[0])))
    return found


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return nan


def panels_of(lines: Sequence[Line]) -> tuple[str | None, list[tuple[str, list[Line]]]]:
    """The axis whose levels are panels (None: one panel holds all), and (title, lines) of each.

    It is the first axis of the entry with most lines. A line without that axis is drawn in every panel.
    """
    if len(lines) <= MOST_LINES:
        return None, [("", list(lines))]
    entries = [line.entry for line in lines]
    largest = next(line for line in lines if line.entry == max(entries, key=entries.count))
    axis = next(iter(largest.levels), None)
    if axis is None:
        return None, [("", list(lines))]
    titles = dict.fromkeys(line.levels[axis] for line in lines if axis in line.levels)
    return axis, [(title, [line for line in lines if line.levels.get(axis, title) == title]) for title in titles]


def density_figures(of: Material) -> list[Figure]:
    """Test accuracy, and EGF_2 where it was measured, against density; nothing for a study without such a cross."""
    lines = density_lines(of.results)
    if not any(r.counted for line in lines for _, r in line.at):
        return []
    dense = next((r for r in of.results if r.counted and _is_dense(r)), None)
    flow = partial(_flow, of)
    made = [
        _figure(lines, dense, lambda m: 100 * m.accuracy, "test accuracy (%)", of.folder, "density-accuracy", log=False)
    ]
    if any(isfinite(flow(m)) for line in lines for _, r in line.at for m in r.counted):
        label = f"average {MATH['egf_2']}"
        made.append(_figure(lines, dense, flow, label, of.folder, "density-flow", log=True))
    return made


def _is_dense(result: ArmResult) -> bool:
    return not result.arm.levels and not any(point.spec.mask.sparse for point in result.arm.points)


def _flow(of: Material, member: MemberResult) -> float:
    value = average_over_points(of.series, member.run, "egf_2")
    return value if value > 0 else nan  # a dead network's 0 has no place on a logarithmic axis


def _figure(
    lines: Sequence[Line], dense: ArmResult | None, pick: Of, label: str, folder: Path, name: str, *, log: bool
) -> Figure:
    axis_name, panels = panels_of(lines)
    colour, stroke = _looks(lines, axis_name)
    level = _mean(dense, pick) if dense is not None else nan
    rows: list[list[object]] = []
    drawn: list[Spot] = []
    with look():
        across = min(ACROSS, len(panels))
        down = ceil(len(panels) / across)
        canvas = Canvas(figsize=(max(5.2, 3.0 * across), 2.9 * down + 0.6), layout="constrained")
        axes = list(canvas.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
        for axis in axes[len(panels) :]:
            axis.remove()
        for k, (axis, (title, shown)) in enumerate(zip(axes, panels, strict=False)):
            if isfinite(level):
                axis.axhline(level, color=REFERENCE_COLOUR, linestyle="--", linewidth=0.9, zorder=0)
            for line in shown:
                spots = _spots(line, pick, log=log)
                _draw(axis, spots, colour[line.rest(axis_name), line.entry], stroke[line.entry])
                rows += [[title, line.label, *astuple(spot)] for spot in spots]
                drawn += spots
            axis.set_title(title)
            if k + across >= len(panels):
                axis.set_xlabel("density (%)")
                axis.tick_params(labelbottom=True)
            if k % across == 0:
                axis.set_ylabel(label)
        _scales(axes[0], lines)
        if log:
            _logarithmic(axes[0], drawn)
        handles = _handles(colour, stroke)
        if dense is not None and isfinite(level):
            handles.append(Line2D([], [], color=REFERENCE_COLOUR, linestyle="--", linewidth=0.9, label=dense.arm.name))
        canvas.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 + across))
        svg = save(canvas, folder, name, _HEADER, rows)
    return Figure(*_words(lines, axis_name, dense if isfinite(level) else None, log=log), name, svg)


def _words(lines: Sequence[Line], axis: str | None, dense: ArmResult | None, *, log: bool) -> tuple[str, str]:
    if log:
        title = "Gradient flow against density"
        caption = (
            "EGF_2 (001 eq. 3.7), averaged over the measuring points of a training. Mean over seeds, bars: their "
            "range; logarithmic scales. What diverged or vanished has no point."
        )
    else:
        title = "Test accuracy against density"
        caption = (
            "Test accuracy of the last epoch against the part of the weights that is active, on a logarithmic scale. "
            "Mean over seeds, bars: one standard deviation. A diverged run counts as guessing."
        )
    if axis is not None:
        common = dict.fromkeys(line.label for line in lines if axis not in line.levels)
        caption += f" A panel for each {axis.rpartition('.')[2]}"
        caption += f"; {', '.join(common)}: in every panel." if common else "."
    if dense is not None:
        caption += f" Dashed: mean of {dense.arm.name}."
    return title, caption


Colours = Mapping[tuple[str, str], int]
"""(levels beside the panel's, entry) -> place among the colours and markers."""


def _looks(lines: Sequence[Line], axis: str | None) -> tuple[Colours, Mapping[str, Stroke]]:
    """A colour for each line of a panel; where they are too many, one for each of its levels and a stroke for each
    entry."""
    every = list(dict.fromkeys((line.rest(axis), line.entry) for line in lines))
    entries = list(dict.fromkeys(line.entry for line in lines))
    if len(every) <= MOST_LINES:
        return {key: k for k, key in enumerate(every)}, dict.fromkeys(entries, "-")
    rests = list(dict.fromkeys(rest for rest, _ in every))
    strokes = {entry: _STROKES[k % len(_STROKES)] for k, entry in enumerate(entries)}
    return {(rest, entry): rests.index(rest) for rest, entry in every}, strokes


@dataclass(frozen=True)
class Spot:
    """A point of a line: mean, deviation and the ends of its bar over n seeds."""

    density: float
    mean: float
    std: float
    low: float
    high: float
    n: int


def _spots(line: Line, pick: Of, *, log: bool) -> list[Spot]:
    found = []
    for density, r in line.at:
        values = [v for m in r.counted if isfinite(v := pick(m))]
        if values:
            s = summary(values)
            spread = s.std if s.n > 1 else 0.0
            # On a logarithmic scale mean minus deviation may fall below 0: the range is shown there.
            ends = (min(values), max(values)) if log else (s.mean - spread, s.mean + spread)
            found.append(Spot(density, s.mean, s.std, *ends, s.n))
    return found


def _draw(axis: Any, spots: Sequence[Spot], k: int, stroke: Stroke) -> None:
    if spots:
        axis.errorbar(
            [100 * s.density for s in spots], [s.mean for s in spots],
            yerr=[[s.mean - s.low for s in spots], [s.high - s.mean for s in spots]],
            color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], linestyle=stroke, capsize=2,
            elinewidth=0.8, markerfacecolor=None if stroke == "-" else "white",
        )  # fmt: skip


def _mean(result: ArmResult, pick: Of) -> float:
    values = [v for m in result.counted if isfinite(v := pick(m))]
    return summary(values).mean if values else nan


def _scales(axis: Any, lines: Sequence[Line]) -> None:
    """The x axis of all panels, which share it: densities in per cent, labelled where there is room."""
    axis.set_xscale("log")
    ticks: list[float] = []
    for density in sorted({density for line in lines for density, _ in line.at}, reverse=True):
        if not ticks or log10(ticks[-1] / density) > ROOM:
            ticks.append(density)
    axis.set_xticks([100 * density for density in ticks])
    axis.set_xticklabels([f"{100 * density:g}" for density in ticks])
    axis.minorticks_off()


def _logarithmic(axis: Any, drawn: Sequence[Spot]) -> None:
    """The y axis of all panels, which share it."""
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(NullFormatter())
    if drawn and max(s.high for s in drawn) < 100 * min(s.low for s in drawn):
        # Powers of ten alone would leave the axis with a number or two, or with none.
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handles(colour: Colours, stroke: Mapping[str, Stroke]) -> list[Line2D]:
    if len(set(stroke.values())) == 1:
        several = len(stroke) > 1
        named = [(" ".join(part for part in (entry if several or not rest else "", rest) if part), k)
                 for (rest, entry), k in colour.items()]  # fmt: skip
        return [_handle(k, "-", label) for label, k in named]
    # Levels by colour, then entries by stroke; an entry without levels has a colour too.
    handles = [_handle(k, "-", rest) for rest, k in {rest: k for (rest, _), k in colour.items() if rest}.items()]
    for entry, style in stroke.items():
        alone = colour.get(("", entry))
        handles.append(
            Line2D([], [], color="#555555", linestyle=style, label=entry)
            if alone is None
            else _handle(alone, style, entry)
        )
    return handles


def _handle(k: int, stroke: Stroke, label: str) -> Line2D:
    face = None if stroke == "-" else "white"
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, linestyle=stroke, label=label)
