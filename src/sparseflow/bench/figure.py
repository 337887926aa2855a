"""`sparseflow bench figure`: time of a training step against density, for this project and its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import FuncFormatter, NullFormatter

from sparseflow.bench.rivals import label
from sparseflow.bench.timing import Row
from sparseflow.core import BadValue, SparseflowError
from sparseflow.report.figures import COLOURS, MARKERS, look, panels

FORMATS = (".svg", ".png", ".pdf")

NAMES = ("masked", "compact", "twin", "prune", "csr", "sparselab", "sparseprop")
"""What is drawn: the names of `rivals.implementations` that a perceptron can be made of."""

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def check_target(out: Path) -> None:
    """Before anything is timed.

    Raises:
        BadValue: for a file of another kind.
    """
    if out.suffix not in FORMATS:
        raise BadValue(f"the figure's file must end in {', '.join(FORMATS)}, got {str(out)!r}")


def draw_scaling(groups: Mapping[float, Sequence[Row]], out: Path) -> None:
    """Median step time against density, both logarithmic; spreads as bars.

    Args:
        groups: density -> the rows of its case.
        out: an .svg, .png or .pdf file.

    Raises:
        BadValue: for a file of another kind, or no rows.
        SparseflowError: if the file cannot be written.
    """
    check_target(out)
    if not any(groups.values()):
        raise BadValue("nothing was timed, so there is nothing to draw")
    with look():
        canvas, (axes,) = panels(1, width=5.2, height=3.6)
        for k, name in enumerate(NAMES):
            text = label(name)
            points = [
                (density, row.median_ms, row.spread_ms)
                for density, rows in sorted(groups.items())
                for row in rows
                if row.implementation == text
            ]
            if not points:
                continue
            x, y, spread = zip(*points, strict=True)
            axes.errorbar(
                x,
                y,
                yerr=spread,
                color=COLOURS[k % len(COLOURS)],
                marker=MARKERS[k % len(MARKERS)],
                linestyle="--" if name == "twin" else "-",
                label=text,
            )
        axes.set(xscale="log", yscale="log", xlabel="density", ylabel="training step (ms)")
        densities = sorted(groups)
        axes.set_xticks(densities, [f"{density:g}" for density in densities])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            canvas.savefig(out, dpi=200, metadata=_NO_DATE.get(out.suffix))
        except OSError as error:
            raise SparseflowError(f"cannot write {out}: {error.strerror}") from None


# The same rows give the same file.
_NO_DATE = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
