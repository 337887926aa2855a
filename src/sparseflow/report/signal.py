"""The report of a signal propagation: how large outputs are at the start (004 Fig. 1c), and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from sparseflow.core import BadStore
from sparseflow.measure import DENSE, Point
from sparseflow.report.blocks import Section, Table, Text, write_csv
from sparseflow.report.formats import error_text
from sparseflow.report.page import write_page
from sparseflow.report.signal_figure import signal_figure, signal_rows

SIGNAL_HEADER = (
    "initialisation",
    "density",
    "output deviation",
    "relative to dense",
    "10 to 90 % of networks",
    "unreached",
    "dead",
    "least fan-in",
    "networks",
)

CLOSE = 0.1
"""A deviation that differs from the dense network's by at most this part of it is called the same."""


def write_signal_report(folder: Path, model: str, points: Sequence[Point], settings: Mapping[str, Any]) -> Path:
    """Write `signal.csv`, `report.html` and `figures/` (SVG, PDF, CSV).

    Args:
        points: each of two draws or more; the dense reference among them.
        settings: what all draws depend on, shown as it is.

    Returns:
        The path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    try:
        figure = signal_figure(points, folder / "figures")
        write_csv(folder / "signal.csv", *signal_rows(points))
        table = Table("Every density and initialisation", _CAPTION, SIGNAL_HEADER, list(signal_cells(points)), labels=2)
        made = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).strip()
        sections = [
            Section("Outputs of the untrained network", [figure, *map(Text, findings(points)), table]),
            Section("Provenance", [Text(f"Settings of every draw:\n{made}", kind="code")]),
        ]
        write_page(folder / "report.html", f"Signal propagation: {model}", _subtitle(settings), sections)
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    return folder / "report.html"


_CAPTION = (
    "Output deviation: of all outputs for all inputs, root of the mean square over networks ± its standard error. "
    "Unreached units are the same for every input; dead are these and those on which no output depends for any input. "
    "Least fan-in: active weights of the unit with the fewest, in any of the networks."
)


def signal_cells(points: Iterable[Point]) -> Iterable[list[str]]:
    """A row for each point, under `SIGNAL_HEADER`, as text; initialisation by initialisation."""
    points = list(points)
    dense = reference(points)
    for point in sorted(points, key=lambda p: ([q.initialisation for q in points].index(p.initialisation), -p.density)):
        part, error = point.relative_to(dense)
        yield [
            point.initialisation,
            f"{point.density:g}",
            f"{point.rms:.3g} ± {error_text(point.error)}",
            "–" if isnan(part) else f"{part:.3g} ± {error_text(error)}",
            f"{point.quantile(0.1):.3g} to {point.quantile(0.9):.3g}",
            f"{100 * point.unreached:.1f} %",
            f"{100 * point.dead:.1f} %",
            f"{point.fan_in:,}",
            f"{len(point.draws):,}",
        ]


def findings(points: Sequence[Point]) -> list[str]:
    """For every initialisation a sentence: from which sparsity on its deviation differs from the dense network's.

    None where the dense network gives one number alone.
    """
    dense = reference(points)
    found: list[str] = []
    for method in dict.fromkeys(point.initialisation for point in points):
        own = sorted((p for p in points if p.initialisation == method and p.density < 1), key=lambda p: -p.density)
        if not own or not dense.rms:
            continue
        far = next((point for point in own if _is_far(point, dense)), None)
        more = f"more than {100 * CLOSE:.0f} % from the dense network's deviation, beyond two standard errors"
        if far is None:
            found.append(f"{method} is at no sparsity drawn, to {_sparsity(own[-1])}, {more}.")
        else:
            found.append(f"{method} is first at {_sparsity(far)} {more}: {far.relative_to(dense)[0]:.3g} of it.")
    return found


def _is_far(point: Point, dense: Point) -> bool:
    part, error = point.relative_to(dense)
    return not abs(part - 1) - 2 * error <= CLOSE


def reference(points: Iterable[Point]) -> Point:
    """The dense network as it is usually drawn."""
    return next(point for point in points if (point.initialisation, point.density) == DENSE)


def _sparsity(point: Point) -> str:
    return f"{100 * (1 - point.density):.4g} %"


def _subtitle(settings: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, settings["input_shape"]))
    return f"{settings['probes']:,} standard normal inputs of shape {shape}; random masks, budget {settings['budget']}"
