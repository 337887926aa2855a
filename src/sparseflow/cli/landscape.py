"""`sparseflow analyse landscape`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from sparseflow.cli.finished import Networks, Where, show
from sparseflow.cli.progress import counting
from sparseflow.core import BadValue, check_positive
from sparseflow.report import LANDSCAPE_HEADER, landscape_cells, write_landscape_report
from sparseflow.study import Look, terrain


def distances(points: int, reach: float) -> tuple[float, ...]:
    """So many, evenly from -reach to reach, 0 among them.

    Raises:
        BadValue: for an even number of points, or a reach that is not positive.
    """
    if points < 3 or points % 2 == 0:
        raise BadValue(f"--points must be odd and at least 3, so that the network itself is among them, got {points}")
    if not 0 < reach < float("inf"):
        raise BadValue(f"--reach must be positive, got {reach:g}")
    half = points // 2
    return tuple(reach * k / half for k in range(-half, half + 1))


def run_landscape(console: Console, where: Where, look: Look) -> None:
    """Look around each network; prints the table and writes the page."""
    check_positive("examples", look.examples)
    check_positive("hessian-examples", look.hessian_examples)
    networks = Networks(console, where)
    nets = networks.load()
    made = {"made_with": networks.fingerprint}
    with networks.folder("landscape") as parts:
        found = []
        for net in nets:
            with counting(f"landscape of {net.label}") as progress:
                found.append(terrain(net, look, parts, made, progress))
        page = write_landscape_report(parts.folder, found, nets, {**asdict(look), **made})
    show(console, LANDSCAPE_HEADER, landscape_cells(found), page)
