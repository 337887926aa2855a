"""The command line: its commands, in the order in which `--help` names them."""

from __future__ import annotations

from typing import Annotated

import typer

from sparseflow import __version__
from sparseflow.cli.analyse import analyse_app
from sparseflow.cli.listing import list_names
from sparseflow.cli.options import console
from sparseflow.cli.pruning import masks, prune
from sparseflow.cli.studies import compare, report, reproduce, search, train
from sparseflow.cli.timings import bench_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, compare and understand sparse neural networks.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (compare, search, train, reproduce, report, prune, masks):
    app.command()(_command)
app.command("list")(list_names)
app.add_typer(analyse_app, name="analyse")
app.add_typer(bench_app, name="bench")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit
