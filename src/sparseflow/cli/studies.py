"""The commands about studies: each reads its arguments and hands them on."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sparseflow.cli.options import Asks, Device, DryRun, Every, Gpus, Jobs, Keep, Out, Ray, Root, Server, Sets, console
from sparseflow.core import BadValue


class Objective(str, Enum):
    """Of a search."""

    ACCURACY, PARETO = "accuracy", "pareto"


class Split(str, Enum):
    """By whose accuracy a search chooses."""

    VAL, TEST = "val", "test"


class Halving(str, Enum):
    """What becomes of a run at a rung: it stops for good, or waits and may be promoted."""

    STOPPING, PROMOTING = "stopping", "promoting"


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
