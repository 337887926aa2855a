"""`sparseflow analyse`: what a network is like, one command for each question."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sparseflow.cli.options import Classes, Device, Root, Sets, Shape, console

analyse_app = typer.Typer(no_args_is_help=True, help="Look into a network: how signals go through it.")


@analyse_app.callback()
def _group() -> None:
    """Keeps the name of the command where there is but one."""


class BatchNorm(str, Enum):
    """Whose statistics normalise."""

    TRAIN, EVAL = "train", "eval"


@analyse_app.command()
def signal(
    model: Annotated[
        str, typer.Argument(help="A model (see `sparseflow list models`), or your own as package.module:factory.")
    ],
    densities: Annotated[
        str, typer.Option("--densities", "-d", metavar="D,...", help="Parts of the weights; default 1 to 0.01.")
    ] = "",
    initialisations: Annotated[
        str, typer.Option("--initialisations", "-i", metavar="NAME,...", help="See `sparseflow list`; default all.")
    ] = "",
    draws: Annotated[int, typer.Option(help="Networks of each density and initialisation.")] = 100,
    probes: Annotated[int, typer.Option(help="Standard normal inputs that each network gets.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of masks, weights and inputs.")] = 0,
    budget: Annotated[str, typer.Option(help="See `sparseflow list budgets`; masks are random within it.")] = "uniform",
    dense: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Weights that stay dense and count in the density.")
    ] = None,
    batch_norm: Annotated[
        BatchNorm, typer.Option(help="Normalise with the statistics of the inputs, or with the running ones.")
    ] = BatchNorm.TRAIN,
    data: Annotated[str, typer.Option(help="A data set that says the shape of the inputs and the classes.")] = "",
    data_root: Root = None,
    input_shape: Shape = "",
    classes: Classes = None,
    sets: Sets = None,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/signal-MODEL.")] = None,
) -> None:
    """How large outputs are at the start, by density and initialisation (004 Fig. 1c). Resumes what was cut."""
    from sparseflow.cli.networks import Request
    from sparseflow.cli.signal import Wish, run_signal

    request = Request(model, sets or [], data, data_root, input_shape, classes, seed, device=device)
    wish = Wish(densities, initialisations, draws, probes, budget, dense or [], batch_norm.value)
    run_signal(console, request, wish, out)
