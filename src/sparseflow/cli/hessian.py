"""`sparseflow analyse hessian`."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from sparseflow.cli.finished import Networks, Where, show
from sparseflow.cli.progress import counting
from sparseflow.core import check_positive
from sparseflow.report import HESSIAN_HEADER, hessian_cells, write_hessian_report
from sparseflow.study import Curvature, curved


def run_hessian(console: Console, where: Where, how: Curvature, examples: int) -> None:
    """The curvature of each network at its own training examples; prints the table and writes the page."""
    check_positive("examples", examples)
    networks = Networks(console, where)
    nets = networks.load()
    settings = {"examples": examples, **asdict(how), "made_with": networks.fingerprint}
    with networks.folder("hessian") as parts:
        found = []
        for net in nets:
            with counting(f"Hessian of {net.label}") as progress:
                batches = net.sample("train", examples)
                found.append(curved(net, batches, how, parts, {"made_with": networks.fingerprint}, progress))
        page = write_hessian_report(parts.folder, found, nets, settings)
    show(console, HESSIAN_HEADER, hessian_cells(found), page)
