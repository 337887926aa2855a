"""`sparseflow analyse interpolate`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from sparseflow.cli.bench import numbers
from sparseflow.cli.finished import Networks, Where, show
from sparseflow.cli.progress import counting
from sparseflow.core import BadValue, check_positive
from sparseflow.report import INTERPOLATE_HEADER, interpolate_cells, write_interpolate_report
from sparseflow.study import Ways, ways


def alphas(points: int, reach: str) -> tuple[float, ...]:
    """So many, evenly from LOW to HIGH.

    Raises:
        BadValue: unless two numbers are given, the lower one first.
    """
    ends = numbers("--range", reach, float)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise BadValue(f"--range takes LOW,HIGH, the lower one first, got {reach!r}")
    low, high = ends
    # Rounded, so that 0 and 1 are met exactly where they are among them.
    return tuple(round(low + (high - low) * k / (points - 1), 12) for k in range(points))


def run_interpolate(console: Console, where: Where, how: Ways, *, start: bool) -> None:
    """Walk from every run but the last to the last one; prints the table and writes the page."""
    check_positive("examples", how.examples)
    networks = Networks(console, where)
    *sources, last = networks.groups
    if not sources or len(last.runs) > 1:
        raise BadValue(f"give RUN... and, last, the one network they lead to; got {', '.join(where.names)}")
    (target,) = networks.load(last.runs)
    named = [(group.label, run) for group in sources for run in group.runs]
    if start:
        labels = {run.label for _, run in named}
        early = [(group, run.moved("start")) for group, run in named if run.at == "final"]
        named += [(group, run) for group, run in early if run.label not in labels]
    nets = list(zip([group for group, _ in named], networks.load([run for _, run in named]), strict=True))
    settings = {"target": target.label, **asdict(how), "start": start, "made_with": networks.fingerprint}
    with networks.folder("interpolate") as parts:
        with counting(f"paths to {target.label}") as progress:
            found = ways(nets, target, how, parts, {"made_with": networks.fingerprint}, progress)
        page = write_interpolate_report(parts.folder, found, target, [target, *(net for _, net in nets)], settings)
    show(console, INTERPOLATE_HEADER, interpolate_cells(found), page)
