"""The figures of a search over layer densities."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, MARKERS, look, save
from sparseflow.report.search_tables import Afterwards
from sparseflow.search import Found, best_so_far

ACROSS = 3
"""Panels side by side."""

_ORIGINS = {"random": 0, "initial": 0, "bayes": 1, "transferred": 2}


def _grid(count: int, height: float = 2.7) -> tuple[Canvas, list[Any]]:
    """A figure with a panel for each search."""
    columns = min(ACROSS, count)
    rows = ceil(count / columns)
    canvas = Canvas(figsize=(max(5.2, 3.1 * columns), height * rows), layout="constrained")
    axes = list(canvas.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axis in axes[count:]:
        axis.remove()
    return canvas, axes[:count]


def progress_figure(found: Sequence[Found], folder: Path) -> Figure:
    """Score by score, and the best one so far."""
    rows: list[list[object]] = []
    with look():
        canvas, axes = _grid(len(found))
        shown: dict[str, Any] = {}
        for axis, one in zip(axes, found, strict=True):
            for origin, place in _ORIGINS.items():
                for whole in (True, False):
                    some = [t for t in one.trials if t.origin == origin and t.whole is whole and t.score == t.score]
                    if some:
                        face = COLOURS[place] if whole else "none"
                        (line,) = axis.plot(
                            [t.number + 1 for t in some],
                            [100 * t.score for t in some],
                            MARKERS[place],
                            color=COLOURS[place],
                            markerfacecolor=face,
                            markersize=4,
                        )
                        shown.setdefault(origin if whole else f"{origin}, stopped at a rung", line)
            best = best_so_far(one.trials)
            (line,) = axis.step(
                [t.number + 1 for t in one.trials], [100 * b for b in best], where="post", color="#444444", linewidth=1
            )
            shown.setdefault("best so far", line)
            rows += [
                [one.quest.label, t.number, t.origin, t.status, t.epoch, t.score, b]
                for t, b in zip(one.trials, best, strict=True)
            ]
            axis.set(xlabel="vectors tried", title=one.quest.label)
        axes[0].set_ylabel("score (%)")
        canvas.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=min(4, len(shown)))
        header = ["search", "number", "origin", "status", "epochs", "score", "best_so_far"]
        svg = save(canvas, folder, "search-progress", header, rows)
    return Figure("Score by score", "Each point is a run that tried a vector.", "search-progress", svg)


def front_figure(found: Sequence[Found], after: Sequence[Afterwards], folder: Path) -> Figure:
    """Score against active weights, with the front of those that none beats in both."""
    rows: list[list[object]] = []
    with look():
        canvas, axes = _grid(len(found))
        for axis, one in zip(axes, found, strict=True):
            whole, front = one.whole, one.front
            x, y = [100 * one.share(t) for t in whole], [100 * t.score for t in whole]
            axis.plot(x, y, "o", color=COLOURS[0], alpha=0.45, markersize=4, label="tried")
            fx, fy = [100 * one.share(t) for t in front], [100 * t.score for t in front]
            axis.step(fx, fy, where="post", color=COLOURS[1], marker="o", markersize=4, label="Pareto front")
            if (best := one.winner) is not None:
                axis.plot(100 * one.share(best), 100 * best.score, "*", color=COLOURS[4], markersize=12, label="winner")
            if (bound := one.quest.spec.max_density) is not None:
                axis.axvline(100 * bound, color="#888888", linestyle=":", linewidth=1, label="bound")
            axis.set(xlabel="active weights (% of dense)", title=one.quest.label)
            on = {t.number for t in front}
            rows += [[one.quest.label, t.number, t.active, one.share(t), t.score, t.number in on] for t in whole]
        axes[0].set_ylabel("score (%)")
        canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        svg = save(canvas, folder, "search-front", ["search", "number", "active", "density", "score", "on_front"], rows)
    return Figure("Accuracy and size", "Runs that went all the way.", "search-front", svg)


def halving_figures(found: Sequence[Found], folder: Path) -> list[Figure]:
    """What happened at the rungs."""
    halved = [one for one in found if one.quest.spec.rungs is not None and one.verdicts]
    if not halved:
        return []
    rows: list[list[object]] = []
    with look():
        canvas, axes = _grid(len(halved), 3.0)
        for axis, one in zip(axes, halved, strict=True):
            rungs = one.quest.spec.rungs
            assert rungs is not None
            by_run: dict[str, dict[int, float]] = {}
            for v in one.verdicts:
                by_run.setdefault(v.run, {})[v.rung] = v.score
            scores = {t.run: t for t in one.trials}
            for run, at in by_run.items():
                trial = scores.get(run)
                x, y = [rungs.epochs[k] for k in sorted(at)], [100 * at[k] for k in sorted(at)]
                ended = trial is not None and trial.whole
                if trial is not None and ended:
                    x, y = [*x, trial.epoch], [*y, 100 * trial.score]
                colour = COLOURS[2] if ended else "#999999"
                axis.plot(x, y, "-", color=colour, linewidth=1.3 if ended else 0.7, alpha=0.9 if ended else 0.6)
                axis.plot(x[-1], y[-1], "o" if ended else "x", color=colour, markersize=4)
                rows += [[one.quest.label, run, epoch, score, ended] for epoch, score in zip(x, y, strict=True)]
            axis.set_xscale("log", base=rungs.eta)
            ticks = [*rungs.epochs, rungs.max_epochs]
            axis.set_xticks(ticks)
            axis.set_xticklabels([str(tick) for tick in ticks])
            axis.minorticks_off()
            axis.set(xlabel="epochs", title=one.quest.label)
        axes[0].set_ylabel("score (%)")
        svg = save(canvas, folder, "search-halving", ["search", "run", "epoch", "score", "went_all_the_way"], rows)
    caption = "A line a run, with its score at every rung: ×, stopped there; ●, trained to the end."
    return [Figure("Successive halving", caption, "search-halving", svg)]


def vector_figures(found: Sequence[Found], folder: Path) -> list[Figure]:
    """Every vector as a column of densities, from the worst score to the best."""
    figures = []
    for number, one in enumerate(found, 1):
        whole = sorted(one.whole, key=lambda t: t.score)
        if len(whole) < 2:
            continue
        names = one.quest.space.names if not one.quest.spec.uniform else ("all layers",)
        table = np.array([t.vector for t in whole]).T
        with look():
            canvas = Canvas(figsize=(6.8, max(1.8, 0.22 * len(names) + 1.5)), layout="constrained")
            axis, below = canvas.subplots(2, 1, sharex=True, height_ratios=[max(2, 0.5 * len(names)), 1.4])
            image = axis.imshow(table, aspect="auto", cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set_yticks(range(len(names)))
            axis.set_yticklabels(names, fontsize=7)
            axis.grid(visible=False)
            canvas.colorbar(image, ax=axis, label="density")
            below.plot(range(len(whole)), [100 * t.score for t in whole], ".", color=COLOURS[0])
            below.set(xlabel="vectors, from the lowest score to the highest", ylabel="score (%)")
            name = "search-vectors" if len(found) == 1 else f"search-vectors-{number}"
            rows = [[t.number, t.score, *t.vector] for t in whole]
            svg = save(canvas, folder, name, ["number", "score", *names], rows)
        title = "Densities and score" + (f", {one.quest.label}" if one.quest.label else "")
        figures.append(Figure(title, "Colour: the density of a layer. Runs that went all the way.", name, svg))
    return figures
