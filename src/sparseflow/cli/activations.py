"""`sparseflow analyse activations`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from sparseflow.cli.finished import Networks, Where, show
from sparseflow.cli.progress import counting
from sparseflow.core import check_positive
from sparseflow.report import activations_cells, activations_header, write_activations_report
from sparseflow.study import Which, zeros_of


def run_activations(console: Console, where: Where, which: Which, examples: int, stages: Sequence[str]) -> None:
    """The zeros in each network's activations; prints the table and writes the page."""
    check_positive("examples", examples)
    networks = Networks(console, where)
    nets = networks.load()
    groups = {run.label: group.label for group in networks.groups for run in group.runs}
    settings = {"split": which, "examples": examples, "made_with": networks.fingerprint}
    with networks.folder("activations") as parts, counting("networks") as progress:
        found = []
        for number, net in enumerate(nets, 1):
            batches = partial(net.sample, which, examples)
            found.append(zeros_of(net, groups[net.label], batches, parts, settings, stages))
            progress(number, len(nets))
        page = write_activations_report(parts.folder, found, nets, {**settings, "stages": list(stages)})
    show(console, activations_header(found), activations_cells(found), page)
