"""The command that lists what can be named."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from sparseflow.cli.options import console
from sparseflow.core import SparseflowError
from sparseflow.data import crops, datasets
from sparseflow.init import initialisations
from sparseflow.masks import budgets, criteria
from sparseflow.models import activations, models
from sparseflow.search import halvings, samplers
from sparseflow.study import presets
from sparseflow.study.variants import parts
from sparseflow.tost import fades
from sparseflow.train import optimizers, rewirings, schedules

CATALOGS = {
    "datasets": datasets,
    "crops": crops,
    "models": models,
    "optimizers": optimizers,
    "schedules": schedules,
    "activations": activations,
    "variants": parts,
    "criteria": criteria,
    "budgets": budgets,
    "initialisations": initialisations,
    "rewirings": rewirings,
    "fades": fades,
    "samplers": samplers,
    "halvings": halvings,
}


def list_names(
    what: Annotated[str, typer.Argument(help=f"{', '.join(CATALOGS)} or presets.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What can be named: data sets, models, optimizers, activations, presets ..."""
    rows = _listed(what)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _listed(what: str) -> list[dict[str, str]]:
    if what == "presets":
        return [{"name": name, "what": title} for name, title in presets().items()]
    if what not in CATALOGS:
        raise SparseflowError(f"nothing called {what!r} to list (known: {', '.join(CATALOGS)}, presets)")
    catalog: Any = CATALOGS[what]
    return [{"name": entry.name, "what": entry.summary, "source": entry.cite} for entry in catalog]
