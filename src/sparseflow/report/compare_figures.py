"""The figures of a capacity-matched comparison: against dense width, sparse and dense (001 Fig. 3.3; 000 Fig. 6-9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path

from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from sparseflow.report.blocks import Figure
from sparseflow.report.compare_tables import MEASURE_NAMES, Layout
from sparseflow.report.figures import COLOURS, MARKERS, look, panels, save
from sparseflow.stats import summary
from sparseflow.study.analysis import MEMBERS, CellResult, MemberResult, Series, average_over_points

MATH = {
    "gf_1": r"$\|g\|_1$",
    "gf_2": r"$\|g\|_2$",
    "egf_1": r"$EGF_1$",
    "egf_2": r"$EGF_2$",
    "squared": r"$\|g \odot m\|_2^2$",
}


def accuracy_figure(results: Sequence[CellResult], layout: Layout, folder: Path) -> Figure:
    """Test accuracy against dense width."""
    svg = _against_width(
        results, layout, lambda m: 100 * m.accuracy, "test accuracy (%)", folder, "accuracy-vs-width", log=False
    )
    caption = (
        "Test accuracy of the last epoch against the dense twin's width; solid: sparse, dashed: dense, at equal "
        "numbers of active weights. Mean over seeds, bars: one standard deviation."
    )
    return Figure("Test accuracy against dense width", caption, "accuracy-vs-width", svg)


def flow_figure(results: Sequence[CellResult], layout: Layout, series: Series, measure: str, folder: Path) -> Figure:
    """A gradient-flow measure, averaged over the measuring points, against dense width."""
    name = f"{measure.replace('_', '')}-vs-width"
    svg = _against_width(
        results,
        layout,
        lambda m: average_over_points(series, m.run, measure) if m.counts else float("nan"),
        f"average {MATH[measure]}",
        folder,
        name,
        log=True,
    )
    caption = (
        f"{MEASURE_NAMES[measure]}, averaged over the measuring points of a training, against the dense twin's width. "
        "Mean over seeds, bars: their range; logarithmic scale."
    )
    title = f"Average {MEASURE_NAMES[measure]} against dense width"
    return Figure(title, caption, name, svg, folded=measure != "egf_2")


def _against_width(
    results: Sequence[CellResult],
    layout: Layout,
    pick: Callable[[MemberResult], float],
    label: str,
    folder: Path,
    name: str,
    *,
    log: bool,
) -> str:
    rows: list[list[object]] = []
    widths = sorted({pair.dense_width for r in results for pair in r.pairs})
    with look():
        canvas, row = panels(len(layout.rows))
        axes = dict(zip(layout.rows, row, strict=True))
        for r in results:
            k = layout.columns.index(layout.column(r))
            for member in MEMBERS:
                points = []
                for width in widths:
                    values = [pick(getattr(p, member)) for p in r.pairs if p.dense_width == width]
                    values = [v for v in values if isfinite(v)]
                    if values:
                        s = summary(values)
                        spread = s.std if s.n > 1 else 0.0
                        # On a logarithmic scale mean minus deviation may fall below 0: the range is shown there.
                        ends = (s.mean - min(values), max(values) - s.mean) if log else (spread, spread)
                        points.append((width, s.mean, *ends))
                        rows.append([r.cell.optimizer, layout.column(r), member, width, s.mean, s.std, s.n])
                if points:
                    x, y, below, above = zip(*points, strict=True)
                    axes[r.cell.optimizer].errorbar(
                        x, y, yerr=(below, above), color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)],
                        linestyle="-" if member == "sparse" else "--", capsize=2, elinewidth=0.8,
                        markerfacecolor=None if member == "sparse" else "white",
                    )  # fmt: skip
        for optimizer, axis in axes.items():
            axis.set_title(optimizer)
            axis.set_xlabel("dense width")
            axis.set_xticks(widths)
            if log and rows:
                axis.set_yscale("log")
                axis.yaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(label)
        _legend(canvas, layout.columns)
        return save(canvas, folder, name, ["optimizer", "variant", "member", "dense_width", "mean", "std", "n"], rows)


def _legend(canvas: object, columns: Sequence[str]) -> None:
    entries = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], label=column)
        for k, column in enumerate(columns)
    ]
    entries += [
        Line2D([], [], color="#555555", linestyle="-", label="sparse"),
        Line2D([], [], color="#555555", linestyle="--", label="dense"),
    ]
    canvas.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 6))  # type: ignore[attr-defined]


def difference_figure(results: Sequence[CellResult], folder: Path) -> Figure:
    """Hodges-Lehmann differences with their intervals over every pair's difference."""
    shown = [r for r in results if r.estimate is not None]
    rows: list[list[object]] = []
    with look():
        canvas, (axis,) = panels(1, width=6.4, height=max(1.8, 0.32 * len(shown) + 0.9))
        axis.axvline(0.0, color="#555555", linewidth=0.9)
        for k, r in enumerate(shown):
            e = r.estimate
            assert e is not None
            for pair in r.complete:
                axis.plot(100 * pair.difference, k, "|", color="#999999", markersize=9)
            ends = [100 * v for v in (e.low, e.high)]
            if all(isfinite(v) for v in ends):
                axis.plot(ends, [k, k], color=COLOURS[0], linewidth=2.4, solid_capstyle="butt")
            axis.plot(100 * e.estimate, k, "o", color=COLOURS[1])
            rows.append([r.cell.optimizer, r.cell.variant, r.cell.activation, 100 * e.estimate, *ends])
        several = len({r.cell.activation for r in shown}) > 1
        axis.set_yticks(range(len(shown)))
        axis.set_yticklabels([r.cell.label if several else f"{r.cell.optimizer} {r.cell.variant}" for r in shown])
        axis.invert_yaxis()
        axis.set_xlabel("test accuracy, sparse minus dense (percentage points)")
        svg = save(
            canvas, folder, "differences", ["optimizer", "variant", "activation", "difference", "low", "high"], rows
        )
    caption = (
        "Dots: Hodges-Lehmann estimate; bars: its interval from the inverted exact test (none where the pairs are too "
        "few for it); strokes: the single pairs. Right of the line sparse is ahead."
    )
    return Figure("How large is the difference?", caption, "differences", svg)
