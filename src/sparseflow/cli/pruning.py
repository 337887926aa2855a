"""The commands about masks: each reads its arguments and hands them on."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sparseflow.cli.options import Classes, Device, Root, Sets, Shape, console
from sparseflow.core import BadValue

ReportFolder = Annotated[Path | None, typer.Option("--report", help="Write an HTML report, with figures, there.")]


class Empty(str, Enum):
    """What becomes of a layer that would be left without a weight."""

    ONE, ERROR, ALLOW = "one", "error", "allow"


class Mode(str, Enum):
    """Of the network while it is scored."""

    TRAIN, EVAL = "train", "eval"


def prune(
    model: Annotated[
        str, typer.Argument(help="A model (see `sparseflow list models`), or your own as package.module:factory.")
    ],
    criterion: Annotated[str, typer.Option("--criterion", "-c", help="See `sparseflow list criteria`.")],
    density: Annotated[
        str, typer.Option("--density", "-d", metavar="D[,D...]", help="Part of the weights that stays; or one a layer.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The mask file.")] = Path("masks.safetensors"),
    budget: Annotated[
        str | None, typer.Option(help="See `sparseflow list budgets`; default: the criterion's own.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="A data set or an .npz: shapes the network, and weights are scored on it.")
    ] = "",
    data_root: Root = None,
    input_shape: Shape = "",
    classes: Classes = None,
    examples: Annotated[int | None, typer.Option(min=1, help="To score on; default: 10 for each class.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the examples.")] = 128,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Score, prune, score again ...; default: the criterion's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights, as in a run; of examples and ties.")] = 0,
    sets: Sets = None,
    weights: Annotated[Path | None, typer.Option(help="A state_dict to prune instead of the initial weights.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Weights that get no mask: a name with * and ?.")
    ] = None,
    dense: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Weights that stay dense and count in the density.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the criterion or the budget.")
    ] = None,
    empty: Annotated[
        Empty, typer.Option(help="A layer that would be left without a weight: keeps one, is an error, is empty.")
    ] = Empty.ONE,
    mode: Annotated[Mode | None, typer.Option(help="The network's mode while scoring; default: the authors'.")] = None,
    device: Device = "cpu",
    report: ReportFolder = None,
) -> None:
    """Find a mask: score the weights of a network and keep the best. Writes a file that says how it was made."""
    from sparseflow.cli.networks import Request
    from sparseflow.cli.prune import Wish, run_prune

    request = Request(model, sets or [], data, data_root, input_shape, classes, seed, weights, device)
    wish = Wish(
        criterion,
        density,
        budget,
        examples,
        batch_size,
        rounds,
        exclude or [],
        dense or [],
        option or [],
        empty.value,
        mode.value if mode else None,
    )
    run_prune(console, request, wish, out, report)


def masks(
    file: Annotated[Path, typer.Argument(help="A mask file; or a state_dict pruned elsewhere, .pt or .safetensors.")],
    second: Annotated[Path | None, typer.Argument(help="Another one, to compare with.")] = None,
    model: Annotated[
        str, typer.Option(help="The model they are for; default: the one that the file names, if of the catalog.")
    ] = "",
    sets: Sets = None,
    input_shape: Shape = "",
    classes: Classes = None,
    everything: Annotated[bool, typer.Option("--all", help="Every layer, however many.")] = False,
    report: ReportFolder = None,
) -> None:
    """Show a mask file: densities, what lies on paths, how it was made. With two: how much they overlap."""
    from sparseflow.cli.masks import run_masks
    from sparseflow.cli.networks import Request

    if not model and (sets or input_shape or classes):
        raise BadValue("--set, --input-shape and --classes describe a model; give --model too")
    request = Request(model, sets or [], input_shape=input_shape, classes=classes) if model else None
    run_masks(console, [file, *([second] if second else [])], request, report, everything=everything)
