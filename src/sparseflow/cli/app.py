"""The commands: each reads its arguments, asks a floor below, and prints."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparseflow import __version__
from sparseflow.cli.analyse import analyse_app
from sparseflow.cli.options import Classes, Device, Root, Server, Sets, Shape, console
from sparseflow.cli.timings import bench_app
from sparseflow.core import BadValue, SparseflowError
from sparseflow.data import crops, datasets
from sparseflow.init import initialisations
from sparseflow.masks import budgets, criteria
from sparseflow.models import activations, models
from sparseflow.search import halvings, samplers
from sparseflow.study import presets
from sparseflow.study.variants import parts
from sparseflow.tost import fades
from sparseflow.train import optimizers, rewirings, schedules

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, compare and understand sparse neural networks.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(analyse_app, name="analyse")
app.add_typer(bench_app, name="bench")

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/NAME.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Workers at most; default: one per core, of the cluster with --ray."),
]
Asks = Annotated[str, typer.Argument(help="A preset (see `sparseflow list presets`) or a YAML file.")]
Keep = Annotated[bool, typer.Option(help="Keep every final network.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how long it takes.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT."),
]
Gpus = Annotated[
    float | None,
    typer.Option("--gpus-per-run", metavar="PART", help="Of a GPU, with --ray and --device cuda; default: 1."),
]
Every = Annotated[
    float, typer.Option("--checkpoint-every", min=0.0, metavar="SECONDS", help="Work that a kill may cost at most.")
]

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


class Empty(str, Enum):
    """What becomes of a layer that would be left without a weight."""

    ONE, ERROR, ALLOW = "one", "error", "allow"


class Objective(str, Enum):
    """Of a search."""

    ACCURACY, PARETO = "accuracy", "pareto"


class Split(str, Enum):
    """By whose accuracy a search chooses."""

    VAL, TEST = "val", "test"


class Halving(str, Enum):
    """What becomes of a run at a rung: it stops for good, or waits and may be promoted."""

    STOPPING, PROMOTING = "stopping", "promoting"


class Mode(str, Enum):
    """Of the network while it is scored."""

    TRAIN, EVAL = "train", "eval"


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def compare(
    study: Asks,
    out: Out = None,
    jobs: Jobs = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds per arm, or per cell and width.")] = None,
    sets: Sets = None,
    data_root: Root = None,
    device: Device = "cpu",
    checkpoint_every: Every = 5.0,
    keep_weights: Keep = False,
    store: Server = None,
    dry_run: DryRun = False,
    ray: Ray = None,
    gpus_per_run: Gpus = None,
) -> None:
    """Does sparse beat dense at the same size, or arm beat arm? Runs, tests, writes a report. Resumes what was cut."""
    from sparseflow.cli.compare import run_comparison
    from sparseflow.cli.setup import Workers

    run_comparison(
        console,
        study,
        out,
        Workers(jobs, ray, gpus_per_run),
        seeds,
        sets or [],
        data_root,
        device,
        checkpoint_every,
        keep_weights,
        server=store,
        dry_run=dry_run,
    )


@app.command()
def search(
    study: Asks = "digits",
    sampler: Annotated[str | None, typer.Option(help="See `sparseflow list samplers`.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Vectors to try.")] = None,
    uniform: Annotated[
        bool | None, typer.Option("--uniform/--layers", help="One density for all, or each its own.")
    ] = None,
    max_density: Annotated[
        float | None, typer.Option(help="The largest part of all weights that may be active.")
    ] = None,
    objective: Annotated[Objective | None, typer.Option(help="The best score, or the best for every size.")] = None,
    halving: Annotated[
        Halving | None, typer.Option(help="Stop most runs early, at rungs; see `sparseflow list halvings`.")
    ] = None,
    score: Annotated[Split | None, typer.Option(help="The split that chooses; test is the paper's protocol.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Try the winner of that search first.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search.")] = None,
    out: Out = None,
    jobs: Jobs = None,
    ray: Ray = None,
    gpus_per_run: Gpus = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Of the runs that tell what was found.")] = None,
    sets: Sets = None,
    data_root: Root = None,
    device: Device = "cpu",
    checkpoint_every: Every = 5.0,
    keep_weights: Keep = False,
    store: Server = None,
    dry_run: DryRun = False,
) -> None:
    """Which layer densities make the best network? Tries vectors, trains the winner anew, writes a report. Resumes."""
    from sparseflow.cli.compare import run_comparison
    from sparseflow.cli.searching import preset_of, settings
    from sparseflow.cli.setup import Workers

    given = {
        "sampler.name": sampler,
        "samples": samples,
        "uniform": uniform,
        "max_density": max_density,
        "objective": objective.value if objective else None,
        "halving.form": halving.value if halving else None,
        "score": score.value if score else None,
        "seed": seed,
    }
    name = preset_of(study)
    run_comparison(
        console,
        name,
        out or Path("runs") / Path(name).stem,
        Workers(jobs, ray, gpus_per_run),
        seeds,
        settings(name, given, sets or [], from_, data_root),
        data_root,
        device,
        checkpoint_every,
        keep_weights,
        server=store,
        dry_run=dry_run,
    )


@app.command()
def train(
    data: Annotated[
        str,
        typer.Argument(help="A data set (see `sparseflow list`), an .npz, ./FOLDER of images, a YAML file."),
    ],
    masks: Annotated[
        Path | None, typer.Option("--masks", "-m", help="Train with the masks in this file, as `prune` writes it.")
    ] = None,
    tost: Annotated[
        bool,
        typer.Option("--tost", help="All tweaks of ToST (ghost neurons and skips, rescaled start, soft labels)."),
    ] = False,
    out: Out = None,
    sets: Sets = None,
    data_root: Root = None,
    device: Device = "cpu",
    checkpoint_every: Every = 5.0,
    store: Server = None,
) -> None:
    """Train one network; keeps its weights and masks, and writes a report. Resumes what was cut."""
    from sparseflow.cli.train import run_training

    run_training(console, data, masks, out, sets or [], data_root, device, checkpoint_every, server=store, tost=tost)


@app.command()
def reproduce(
    item: Annotated[str | None, typer.Argument(help="A table or figure, such as 001.table3.3a (see --list).")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Every table and figure, with what it takes here.")] = False,
    scale: Annotated[
        str, typer.Option(help="full, medium, small, a rung from 0 (full) to 10, or minutes=N.")
    ] = "small",
    data: Annotated[str | None, typer.Option(help="Train on this data set in place of the paper's.")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what was found there, in small files.")
    ] = None,
    scoreboard: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page of what reproduces, from the records in --record."),
    ] = None,
    out: Out = None,
    jobs: Jobs = None,
    data_root: Root = None,
    device: Device = "cpu",
    checkpoint_every: Every = 5.0,
    dry_run: DryRun = False,
    ray: Ray = None,
    gpus_per_run: Gpus = None,
) -> None:
    """A table or figure of the papers: the paper's numbers beside the measured ones, at any scale. Resumes."""
    from sparseflow.cli.reproducing import Wish, run_reproduction, write_scoreboard
    from sparseflow.cli.reproducing_list import list_items
    from sparseflow.cli.setup import Workers

    if sum((item is not None, listed, scoreboard is not None)) != 1:
        raise BadValue("reproduce takes one of: a table or figure, --list, --scoreboard FILE")
    if listed:
        list_items(console, jobs)
    elif scoreboard is not None:
        write_scoreboard(console, record or Path("results"), scoreboard)
    elif item is not None:
        wish = Wish(item, scale, data, record)
        workers = Workers(jobs, ray, gpus_per_run)
        run_reproduction(console, wish, out, workers, data_root, device, checkpoint_every, dry_run=dry_run)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="An output folder: the report is written there.")],
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the server, where the folder does not know it.")
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Which one; default: the latest asked for.")] = None,
) -> None:
    """Write the report of a folder again; works while a study is still running there."""
    from sparseflow.cli.report import run_report

    run_report(console, folder, store, study)


ReportFolder = Annotated[Path | None, typer.Option("--report", help="Write an HTML report, with figures, there.")]


@app.command()
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


@app.command()
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


@app.command("list")
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
