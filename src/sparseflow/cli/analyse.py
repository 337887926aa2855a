"""`sparseflow analyse`: what a network is like, one command for each question."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sparseflow.cli.options import Classes, Device, Root, Sets, Shape, console

analyse_app = typer.Typer(no_args_is_help=True, help="Look into networks: signals, curvature, likeness.")


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


Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="FOLDER, FOLDER:NAME, FOLDER:ARM@SEED or FOLDER:ARM; #start or #STEP for earlier weights.",
    ),
]
Examples = Annotated[int, typer.Option("--examples", help="At most so many, stratified, the same for every run.")]
OutFolder = Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/ANALYSIS-RUN.")]


class Precision(str, Enum):
    """Of the copy that is measured."""

    FLOAT32, FLOAT64 = "float32", "float64"


@analyse_app.command()
def hessian(
    runs: Runs,
    exact: Annotated[bool, typer.Option("--exact", help="All eigenvalues: a product for each active weight.")] = False,
    probes: Annotated[int, typer.Option(min=0, help="Of quadrature, whose error bars are over them; 0: none.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps of each probe.")] = 80,
    top: Annotated[int, typer.Option(min=0, help="Largest eigenvalues, with vectors.")] = 5,
    bottom: Annotated[int, typer.Option(min=0, help="Smallest ones.")] = 5,
    examples: Examples = 1000,
    mode: Annotated[
        BatchNorm, typer.Option(help="Normalise with the running statistics, or with those of each batch.")
    ] = BatchNorm.EVAL,
    dtype: Annotated[Precision, typer.Option(help="Eigenvalues near 0 need float64.")] = Precision.FLOAT64,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate of the predicted step; default: the run's own at its start.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of probes and starting vectors.")] = 0,
    data_root: Root = None,
    device: Device = "cpu",
    out: OutFolder = None,
) -> None:
    """Spectrum of the loss over active weights, its ends, predicted steps (004 Fig. 10, 11). Resumes what was cut."""
    from sparseflow.cli.finished import Where
    from sparseflow.cli.hessian import run_hessian
    from sparseflow.study import Curvature

    how = Curvature(exact, probes, steps, top, bottom, mode.value, dtype.value, rate, seed)
    run_hessian(console, Where(runs, out, data_root, device), how, examples)


class Split(str, Enum):
    """Which examples."""

    TRAIN, TEST = "train", "test"


class Over(str, Enum):
    """How examples are taken together."""

    MEAN, SUM = "mean", "sum"


@analyse_app.command()
def activations(
    runs: Runs,
    split: Annotated[Split, typer.Option(help="The examples that the networks get.")] = Split.TEST,
    examples: Examples = 10_000,
    stages: Annotated[
        str, typer.Option("--stages", metavar="NAME,...", help="Put layers together whose names begin so.")
    ] = "",
    data_root: Root = None,
    device: Device = "cpu",
    out: OutFolder = None,
) -> None:
    """Which part of every activation's outputs is 0 (003 Table 1)."""
    from sparseflow.cli.activations import run_activations
    from sparseflow.cli.bench import numbers
    from sparseflow.cli.finished import Where

    stage_names = numbers("--stages", stages, str)
    run_activations(console, Where(runs, out, data_root, device), split.value, examples, stage_names)


@analyse_app.command()
def similarity(
    runs: Runs,
    reference: Annotated[
        str,
        typer.Option(metavar="RUN", help="What all are compared with, such as a pruned solution; default: the first."),
    ] = "",
    examples: Examples = 10_000,
    over: Annotated[Over, typer.Option(help="KL and JSD: the mean over examples, or their sum.")] = Over.MEAN,
    start: Annotated[bool, typer.Option(help="Show where the runs began, too.")] = True,
    data_root: Root = None,
    device: Device = "cpu",
    out: OutFolder = None,
) -> None:
    """Distances, embedding, ensembles and disagreement of networks (004 Fig. 5, Tables 2, 6); FOLDER:ARM is a group."""
    from sparseflow.cli.finished import Where
    from sparseflow.cli.similarity import run_similarity

    run_similarity(console, Where(runs, out, data_root, device), reference, examples, over.value, start=start)


class Statistics(str, Enum):
    """Of batch normalisation, between two networks."""

    RECOMPUTE, KEEP = "recompute", "keep"


@analyse_app.command()
def interpolate(
    runs: Runs,
    points: Annotated[int, typer.Option(min=2, help="Where to look on each path, both ends among them.")] = 11,
    reach: Annotated[
        str, typer.Option("--range", metavar="LOW,HIGH", help="Of alpha: 0 is each network, 1 the last RUN.")
    ] = "0,1",
    batch_norm: Annotated[
        Statistics, typer.Option(help="Statistics taken anew at every point, or interpolated with the weights.")
    ] = Statistics.KEEP,
    start: Annotated[bool, typer.Option(help="Go from where the runs began, too.")] = True,
    split: Annotated[Split, typer.Option(help="The examples of loss and accuracy.")] = Split.TRAIN,
    examples: Examples = 10_000,
    data_root: Root = None,
    device: Device = "cpu",
    out: OutFolder = None,
) -> None:
    """Loss on straight paths to the last RUN from the others, their starts and ends (004 Fig. 5c, f). Resumes."""
    from sparseflow.cli.finished import Where
    from sparseflow.cli.interpolate import alphas, run_interpolate
    from sparseflow.study import Ways

    how = Ways(alphas(points, reach), split.value, examples, batch_norm.value)
    run_interpolate(console, Where(runs, out, data_root, device), how, start=start)


class View(str, Enum):
    """Where a landscape is looked at."""

    EIGENVECTOR, RANDOM, PLANE, INPUT = "eigenvector", "random", "plane", "input"


@analyse_app.command()
def landscape(
    runs: Runs,
    view: Annotated[
        View, typer.Option(help="Along the Hessian's top eigenvector, one random direction, two, or around inputs.")
    ] = View.EIGENVECTOR,
    points: Annotated[int, typer.Option(help="On each axis, an odd number; a map has their square.")] = 21,
    reach: Annotated[
        float, typer.Option(help="The farthest distance; a random direction has the filters' norms.")
    ] = 1.0,
    split: Annotated[Split, typer.Option(help="The examples of the loss.")] = Split.TEST,
    examples: Examples = 10_000,
    hessian_examples: Annotated[int, typer.Option(help="Training examples of the Hessian.")] = 1000,
    mode: Annotated[
        BatchNorm, typer.Option(help="Normalise with the running statistics, or with those of each batch.")
    ] = BatchNorm.EVAL,
    seed: Annotated[int, typer.Option(min=0, help="Of random directions and starting vectors.")] = 0,
    data_root: Root = None,
    device: Device = "cpu",
    out: OutFolder = None,
) -> None:
    """The loss around networks, in weights and inputs (003 Fig. 8, 10; Li et al. 2018). Resumes what was cut."""
    from sparseflow.cli.finished import Where
    from sparseflow.cli.landscape import distances, run_landscape
    from sparseflow.core import BadValue
    from sparseflow.study import Look

    if view is View.INPUT and mode is BatchNorm.TRAIN:
        raise BadValue("--mode train has no effect on --view input, where each example stands for itself")
    at = distances(points, reach)
    look = Look(view.value, at, split.value, examples, hessian_examples, mode.value, seed)
    run_landscape(console, Where(runs, out, data_root, device), look)
