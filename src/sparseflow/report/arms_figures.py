"""The figures of a study of named arms: curves along training with bands, and every seed's outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from sparseflow.report.blocks import Figure
from sparseflow.report.compare_figures import MATH
from sparseflow.report.figures import COLOURS, MARKERS, look, rows_of_panels, save
from sparseflow.stats import summary
from sparseflow.study import ArmResult, Series
from sparseflow.study.groups import equal_parts

MOST_LINES = 8
"""Arms that share a row of panels: as many as there are colours to tell apart."""

REFERENCE_COLOUR = "#777777"
Epochs = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Group:
    """Arms that share a row of panels, with the names that tell them apart there."""

    title: str
    arms: tuple[tuple[str, ArmResult], ...]


Panels = Mapping[str, Sequence[str]]
"""Title -> names of the arms whose curves share a row of panels."""


def groups(results: Sequence[ArmResult], panels: Panels | None = None) -> list[Group]:
    """The panels asked for, an arm too many for a row going into the next.

    Without any: all arms together if they are few; else a row of a cross each, and the rest in rows as equal as can be.
    """
    if panels:
        by_name = {r.arm.name: r for r in results}
        return [
            Group(title, tuple((name, by_name[name]) for name in part))
            for title, names in panels.items()
            for part in equal_parts(names, MOST_LINES)
        ]
    if len(results) <= MOST_LINES:
        return [Group("", tuple((r.arm.name, r) for r in results))]
    crossed: dict[tuple[str, ...], list[ArmResult]] = {}
    for r in results:
        crossed.setdefault(r.arm.place[:-1], []).append(r)
    found, rest = [], []
    for place, members in crossed.items():
        if place and 1 < len(members) <= MOST_LINES:
            axis = list(members[0].arm.levels)[-1]
            named = tuple((f"{axis.rpartition('.')[2]} {r.arm.place[-1]}", r) for r in members)
            found.append(Group(" ".join(place), named))
        else:
            rest += members
    plain = [Group("", tuple((r.arm.name, r) for r in part)) for part in equal_parts(rest, MOST_LINES)]
    return [*plain, *found]


@dataclass(frozen=True)
class Curve:
    """A metric as a column of panels."""

    metric: str
    label: str
    log: bool
    scale: float = 1.0


OUTCOME_CURVES = (
    Curve("train_loss", "training loss", log=True),
    Curve("test_loss", "test loss", log=True),
    Curve("test_accuracy", "test accuracy (%)", log=False, scale=100.0),
    Curve("val_accuracy", "validation accuracy (%)", log=False, scale=100.0),
)
FLOW_CURVES = tuple(Curve(name, MATH[name], log=True) for name in ("squared", "egf_2", "egf_1", "gf_2", "gf_1"))

CURVATURE_CURVES = (
    Curve("top_eigenvalue_1", "largest eigenvalue", log=False),
    Curve("bottom_eigenvalue_1", "smallest eigenvalue", log=False),
    Curve("gradient_curvature", r"$g^T H g / g^T g$", log=False),
)

OUTER, BEYOND = 0.05, 30.0
"""A logarithmic axis ends at so many times this quantile of its values, on either side, at the latest."""

BANDS = (
    "Lines: mean over seeds; bands: one standard deviation. On logarithmic axes both are of the logarithm, and what "
    f"lies over {BEYOND:g} times below the {OUTER:.0%} or above the {1 - OUTER:.0%} quantile of all values is cut off. "
    "A diverged run ends where it diverged."
)


@dataclass(frozen=True)
class Material:
    """What curves are drawn from.

    Attributes:
        reference: shown in every row, dashed, so that rows can be compared.
        series: run -> metric -> [(step, value)].
        epochs: run -> step -> epoch.
        panels: the rows that are asked for.
    """

    results: Sequence[ArmResult]
    reference: ArmResult | None
    series: Series
    epochs: Epochs
    panels: Panels
    folder: Path


def curve_figure(of: Material, curves: Sequence[Curve], title: str, name: str, words: str = "") -> Figure | None:
    """Curves along training, a column a metric and a row a group of arms; None if nothing was measured."""
    results, reference = of.results, of.reference
    drawn = {
        curve: {r.arm.name: _bands(r, of.series, of.epochs, curve) for r in results}
        for curve in curves
        if any(curve.metric in of.series.get(member.run, {}) for r in results for member in r.members)
    }
    measured = {r.arm.name for r in results if any(bands[r.arm.name] for bands in drawn.values())}
    shown = [group for group in groups(results, of.panels) if any(r.arm.name in measured for _, r in group.arms)]
    if not shown:
        return None
    with look():
        canvas, axes = rows_of_panels(len(shown), len(drawn))
        for line, group in zip(axes, shown, strict=True):
            for axis, bands in zip(line, drawn.values(), strict=True):
                if reference is not None and all(r is not reference for _, r in group.arms):
                    _draw(axis, bands[reference.arm.name], REFERENCE_COLOUR, reference.arm.name, "--")
                for k, (label, r) in enumerate(group.arms):
                    if r.arm.name in measured:
                        _draw(axis, bands[r.arm.name], COLOURS[k], label, "-")
            handles, labels = line[0].get_legend_handles_labels()
            line[-1].legend(
                handles, labels, title=group.title or None, loc="center left", bbox_to_anchor=(1.02, 0.5),
                alignment="left", title_fontproperties={"weight": "bold", "size": 8.5},
            )  # fmt: skip
        for axis, (curve, bands) in zip(axes[0], drawn.items(), strict=True):
            axis.set_title(curve.label)
            if curve.log:
                _logarithmic(axis, [band for of_arm in bands.values() for band in of_arm])
        for axis in axes[-1]:
            axis.set_xlabel("epoch")
        rows = [
            [arm, curve.metric, *band]
            for curve, bands in drawn.items()
            for arm, found in bands.items()
            for band in found
        ]
        svg = save(canvas, of.folder, name, ["arm", "metric", "epoch", "mean", "low", "high", "n"], rows)
    return Figure(title, f"{words} {BANDS}".strip(), name, svg)


Band = tuple[float, float, float, float, int]
"""(epoch, mean, low, high, n)."""


def _bands(result: ArmResult, series: Series, epochs: Epochs, curve: Curve) -> list[Band]:
    at: dict[float, list[float]] = {}
    for member in result.members:
        for step, value in series.get(member.run, {}).get(curve.metric, ()):
            # NaN and, on a logarithmic axis, 0 have no place.
            if value == value and (value > 0 or not curve.log):
                at.setdefault(epochs[member.run][step], []).append(value)
    found: list[Band] = []
    for epoch, values in sorted(at.items()):
        s = summary([log10(v) if curve.log else curve.scale * v for v in values])
        spread = s.std if s.n > 1 else 0.0
        mean, low, high = (10**v if curve.log else v for v in (s.mean, s.mean - spread, s.mean + spread))
        found.append((epoch, mean, low, high, s.n))
    return found


def _logarithmic(axis: Any, bands: Sequence[Band]) -> None:
    """Such a scale for the axis and those that share it; one arm that exploded or died does not flatten the others."""
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(NullFormatter())
    if not bands:
        return
    _, means, lows, highs, _ = zip(*bands, strict=True)
    low, high = np.quantile(means, [OUTER, 1 - OUTER])
    axis.set_ylim(max(min(lows) / 1.3, low / BEYOND), min(max(highs) * 1.3, high * BEYOND))


def _draw(axis: Any, points: Sequence[Band], colour: str, label: str, style: str) -> None:
    x, mean, low, high = ([point[k] for point in points] for k in range(4))
    axis.plot(x, mean, color=colour, label=label, linestyle=style, marker="." if len(points) < 3 else None)
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def dot_figure(
    results: Sequence[ArmResult], reference: ArmResult | None, folder: Path, name: str = "accuracies"
) -> Figure:
    """Every run's last test accuracy, arm by arm, with the mean and one standard deviation."""
    rows: list[list[object]] = []
    lines = [(group.title, *arm, COLOURS[k]) for group in groups(results) for k, arm in enumerate(group.arms)]
    with look():
        canvas, ((axis,),) = rows_of_panels(1, 1, width=6.6, height=max(1.6, 0.3 * len(lines) + 0.7))
        if reference is not None and reference.counted:
            mean = 100 * summary([m.accuracy for m in reference.counted]).mean
            axis.axvline(mean, color=REFERENCE_COLOUR, linestyle="--", linewidth=0.9, zorder=0)
        for y, (_, _, r, colour) in enumerate(lines):
            _dots(axis, y, r, colour)
            rows += [[r.arm.name, m.run, m.status, 100 * m.accuracy] for m in r.counted]
        axis.set_yticks(range(len(lines)))
        axis.set_yticklabels([f"{title}, {label}" if title else label for title, label, _, _ in lines])
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.set_xlabel("test accuracy (%)")
        svg = save(canvas, folder, name, ["arm", "run", "status", "test_accuracy_percent"], rows)
    caption = (
        "Dots: the single seeds; stroke and bar: mean and one standard deviation. × is a diverged run, which counts as "
        "guessing."
    )
    if reference is not None:
        caption += f" Dashed line: mean of {reference.arm.name}."
    return Figure("The last epoch's test accuracy", caption, name, svg)


def _dots(axis: Any, y: int, result: ArmResult, colour: str) -> None:
    members = result.counted
    if not members:
        return
    s = summary([100 * m.accuracy for m in members])
    if s.n > 1:
        axis.plot([s.mean - s.std, s.mean + s.std], [y, y], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
    axis.plot(s.mean, y, "|", color=colour, markersize=13, markeredgewidth=2)
    for k, member in enumerate(members):
        # Seeds of one accuracy would hide each other on one line.
        offset = 0.5 * ((k + 0.5) / len(members) - 0.5)
        marker = "x" if member.status == "diverged" else MARKERS[0]
        axis.plot(
            100 * member.accuracy, y + offset, marker, color=colour, markersize=4, markerfacecolor="white", zorder=3
        )
