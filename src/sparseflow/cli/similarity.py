"""`sparseflow analyse similarity`."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from sparseflow.cli.finished import Networks, Where, show
from sparseflow.cli.progress import counting
from sparseflow.core import BadValue, check_positive
from sparseflow.measure.similarity import Over
from sparseflow.report import SIMILARITY_HEADER, similarity_cells, write_similarity_report
from sparseflow.study import Finished, find_group, likeness


def run_similarity(console: Console, where: Where, reference: str, examples: int, over: Over, *, start: bool) -> None:
    """Compare the networks with each other and with the reference; prints the table and writes the page."""
    check_positive("examples", examples)
    networks = Networks(console, where)
    one = _reference(reference, networks)
    runs = list({run.label: run for run in [one, *networks.runs]}.values())
    nets = networks.load(runs)
    beginnings = [run.moved("start") for run in runs if run.at == "final"] if start else []
    starts = networks.load(beginnings)
    settings = {"reference": one.label, "examples": examples, "over": over, "start": start}
    settings["made_with"] = networks.fingerprint
    with networks.folder("similarity") as parts:
        with counting("networks") as progress:
            by_label = {net.label: net for net in nets}
            found = likeness(networks.groups, by_label, starts, one.label, examples, over, progress)
        page = write_similarity_report(parts.folder, found, nets, settings)
    show(console, SIMILARITY_HEADER, similarity_cells(found), page)


def _reference(words: str, networks: Networks) -> Finished:
    """The network that all are compared with: as asked for, or the first of all."""
    if not words:
        return networks.runs[0]
    group = find_group(words)
    if len(group.runs) > 1:
        raise BadValue(f"--reference takes one network, and {words} is {len(group.runs)} (say @SEED)")
    (found,) = group.runs
    same = [run for run in networks.runs if (run.folder, run.spec, run.at) == (found.folder, found.spec, found.at)]
    if same:
        return same[0]
    taken = any(run.label == found.label for run in networks.runs)
    return replace(found, label=f"{found.folder}:{found.label}") if taken else found
