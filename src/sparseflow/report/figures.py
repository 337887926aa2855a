"""Figures fit for a paper: one look, saved as SVG and PDF with their rows as CSV."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure as Canvas

from sparseflow.report.blocks import write_csv

# Okabe & Ito's palette: distinguishable under the common colour blindnesses and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    # Text stays text, and ids do not depend on the moment: the same rows give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "sparseflow",
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
}


@contextmanager
def look() -> Iterator[None]:
    """Inside, matplotlib draws with this project's settings."""
    with matplotlib.rc_context(_LOOK):
        yield


def panels(columns: int, *, width: float = 3.1, height: float = 2.7, share_y: bool = True) -> tuple[Canvas, list[Any]]:
    """A figure with a row of axes, which share their y axis unless told otherwise."""
    canvas = Canvas(figsize=(max(4.2, width * columns), height), layout="constrained")
    return canvas, list(canvas.subplots(1, columns, squeeze=False, sharey=share_y)[0])


def rows_of_panels(
    rows: int, columns: int, *, width: float = 2.5, height: float = 2.1
) -> tuple[Canvas, list[list[Any]]]:
    """A figure with rows of axes that share x everywhere and y down each column; sizes in inches, of one panel."""
    canvas = Canvas(figsize=(max(4.2, width * columns), height * rows), layout="constrained")
    return canvas, [list(row) for row in canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey="col")]


def save(canvas: Canvas, folder: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write `name`.svg, `name`.pdf and `name`.csv into the folder; returns the SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = canvas.get_layout_engine()
    assert engine is not None  # every canvas here is made with one
    engine.execute(canvas)
    canvas.set_layout_engine(None)  # panels keep the places they have now: each file would find the same ones again
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    canvas.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    write_csv(folder / f"{name}.csv", header, rows)
    return svg
