"""`sparseflow reproduce --list`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sparseflow.cli.progress import duration
from sparseflow.core import cores
from sparseflow.reproduce.experiment import Experiment, experiment
from sparseflow.reproduce.items import items
from sparseflow.reproduce.machine import Machine
from sparseflow.reproduce.scale import NAMED
from sparseflow.reproduce.works import works


def list_items(console: Console, jobs: int | None) -> None:
    """Every table and figure of the papers, with the runs and the time that it takes at the named scales."""
    with console.status("timing this machine"):
        machine = Machine.timed()
    workers = jobs or cores()
    counted = works()
    table = Table(box=None, pad_edge=False)
    for name in ("item", "shows", "needs", "how", "runs"):
        table.add_column(name, justify="right" if name == "runs" else "left", no_wrap=name in ("item", "runs"))
    for scale in NAMED:
        table.add_column(scale, justify="right", no_wrap=True)
    for item in items().values():
        known = counted.get(item.id, {})
        runs = f"{known['full'].runs:,}" if "full" in known else "–"
        times = [duration(machine.seconds(known[s]) / workers) if s in known else "–" for s in NAMED]
        table.add_row(item.id, item.phrase, item.needs, _how(experiment(item.id)), runs, *times)
    console.print(table)
    console.print(
        f"Times: estimates for {workers} worker{'s' if workers > 1 else ''} of this machine, from counted operations; "
        "--dry-run times an item's own steps."
    )
    for item in items().values():
        if lacks := experiment(item.id).lacks:
            console.print(f"{item.id}: {lacks}")


def _how(experiment: Experiment) -> str:
    kinds = {"pairs": "capacity-matched pairs", "arms": "named arms", "search": "search"}
    found = list(dict.fromkeys(kinds[part.kind] for part in experiment.parts))
    if experiment.makes is not None:
        found.append("no training")
    return ", ".join(found)
