"""Paths from the networks of a study to its reference: losses with intervals, and how high they rise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, look, rows_of_panels, save
from sparseflow.report.formats import spread_text
from sparseflow.report.interpolate import CONFIDENCE, band
from sparseflow.study import Likened, Way

HEIGHT_HEADER = ("from", "moment", "loss of", "n", "loss at 0", "highest", "height", "barrier")
SPLITS = {"train": "training", "test": "test"}
MOMENTS = {"start": "start", "final": "end"}


def height_cells(found: Likened) -> Iterator[list[str]]:
    """A row for each arm, moment and split, under `HEIGHT_HEADER`, as text."""
    for group in _groups(found):
        for moment in MOMENTS:
            for split in SPLITS:
                paths = [way.path for way in _some(found, split, group, moment)]
                if paths:
                    columns = (
                        [path.ends[0] for path in paths],
                        [max(path.losses) for path in paths],
                        [path.height for path in paths],
                        [path.barrier for path in paths],
                    )
                    texts = [spread_text(column, 4).rpartition(" (")[0] for column in columns]
                    yield [group, MOMENTS[moment], SPLITS[split], str(len(paths)), *texts]


def path_figure(found: Likened, batch_norm: str, folder: Path, name: str = "paths") -> Figure:
    """Mean loss of each arm on the way to the reference, from starts and from ends, with intervals."""
    target = found.likeness.reference
    groups = _groups(found)
    rows = []
    with look():
        canvas, axes = rows_of_panels(len(SPLITS), len(MOMENTS), width=3.6, height=2.5)
        for row, split in zip(axes, SPLITS, strict=True):
            for axis, moment in zip(row, MOMENTS, strict=True):
                for k, group in enumerate(groups):
                    ways = _some(found, split, group, moment)
                    if ways:
                        style: Any = {"color": COLOURS[k % len(COLOURS)], "linestyle": _LINES[k % len(_LINES)]}
                        style["label"] = group if axis is axes[0][1] else None
                        band(axis, ways[0].path.alphas, [way.path.losses for way in ways], style)
                    rows += [[group, moment, split, way.label, a, v] for way in ways for a, v in _points(way)]
                if row is axes[0]:
                    axis.set_title(f"from the {MOMENTS[moment]}s")
                if row is axes[-1]:
                    axis.set(xlabel=f"alpha (1: {target})")
            row[0].set(ylabel=f"{SPLITS[split]} loss")
        for row in axes:
            row[0].set(yscale="log")
        canvas.legend(loc="outside upper left", ncols=5)
        svg = save(canvas, folder, name, ["group", "moment", "split", "network", "alpha", "loss"], rows)
    statistics = " Statistics of batch normalisation are taken anew at every point." * (batch_norm == "recompute")
    caption = (
        f"(1 - alpha) times each network + alpha times {target} (004 Fig. 5c, f, 9c): means over an arm's runs with "
        f"{100 * CONFIDENCE:.0f} % intervals (Student's t); on the left the loss is on a logarithmic axis.{statistics}"
    )
    return Figure(f"Paths to {target}", caption, name, svg)


_LINES = ("-", "-", "--", ":", "-.")


def _groups(found: Likened) -> list[str]:
    return list(dict.fromkeys(way.group for way in found.train_ways))


def _some(found: Likened, split: str, group: str, moment: str) -> list[Way]:
    ways = found.train_ways if split == "train" else found.test_ways
    return [way for way in ways if way.group == group and way.moment == moment]


def _points(way: Way) -> Sequence[tuple[float, float]]:
    return list(zip(way.path.alphas, way.path.losses, strict=True))
