"""`sparseflow bench`: each command times one thing against its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparseflow.cli.options import Root, console

bench_app = typer.Typer(no_args_is_help=True, help="Time implementations against named rivals in one run.")

Threads = Annotated[int, typer.Option(min=1, help="Threads of every implementation.")]
AsRows = Annotated[bool, typer.Option("--json", help="Tidy rows as JSON.")]
Memory = Annotated[bool, typer.Option(help="Measure peak memory too, in a fresh process for each.")]


@bench_app.command()
def layer(
    linear: Annotated[str, typer.Option(metavar="INxOUT,...", help="Linear layers; default 3076x3076.")] = "",
    conv: Annotated[str, typer.Option(metavar="CHANNELS@SIDE,...", help="3x3 convolutions, such as 16@32.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="The wide layer, small ones, those of ResNet-32 and WRN-28-10.")
    ] = False,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Batch sizes; default 128.")] = "",
    density: Annotated[str, typer.Option(metavar="D,...", help="Densities; default 0.01 to 0.5.")] = "",
    implementations: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="compact, compact-batch-major, twin, dense, masked, prune, csr, sparselab, sparseprop; default all.",
        ),
    ] = "",
    rounds: Annotated[int, typer.Option(min=2, help="Timed turns of each implementation.")] = 15,
    threads: Threads = 1,
    memory: Memory = True,
    as_json: AsRows = False,
) -> None:
    """Forward and both backward products of one layer: compact, dense twin, masked, and the sparse libraries."""
    from sparseflow.cli.bench import run_layer

    run_layer(
        console,
        linear,
        conv,
        everything,
        batch,
        density,
        implementations,
        as_json=as_json,
        rounds=rounds,
        threads=threads,
        memory=memory,
    )


@bench_app.command()
def step(
    model: Annotated[str, typer.Option(help="mlp (the CIFAR comparison net), or resnet32, resnet20 ...")] = "mlp",
    dense_width: Annotated[int | None, typer.Option(min=1, help="Width of mlp's dense twin; default 308.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Instead: density of every layer; of a ResNet's 3x3 ones, default 0.05.")
    ] = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="Optimisers; default sgd and adam.")] = None,
    implementations: Annotated[
        str, typer.Option(metavar="NAME,...", help="Default: masked, compact and twin; of a ResNet dense, not twin.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1)] = 128,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers of mlp.")] = 4,
    rounds: Annotated[int, typer.Option(min=2, help="Timed steps of each implementation.")] = 15,
    threads: Threads = 1,
    implementation: Annotated[str, typer.Option(help="Of the optimiser: auto, plain, foreach or fused.")] = "auto",
    memory: Memory = True,
    profile: Annotated[bool, typer.Option(help="Instead: where the time goes, by kind of operation.")] = False,
    as_json: AsRows = False,
) -> None:
    """One optimisation step of a whole network: masked, compact, and the dense twin or the dense network."""
    from sparseflow.cli.bench import run_step

    run_step(
        console,
        model,
        tuple(optimizer or ("sgd", "adam")),
        implementations,
        profiled=profile,
        rounds=rounds,
        threads=threads,
        memory=memory,
        as_json=as_json,
        dense_width=dense_width,
        density=density,
        batch=batch,
        depth=depth,
        implementation=implementation,
    )


@bench_app.command()
def overhead(
    batch: Annotated[str, typer.Option(metavar="N,...", help="Batch sizes; default 32 and 128.")] = "",
    optimizer: Annotated[list[str] | None, typer.Option(help="Optimisers; default momentum and adam.")] = None,
    density: Annotated[float, typer.Option(help="Of every weight.")] = 0.1,
    rounds: Annotated[int, typer.Option(min=2, help="Timed turns of each implementation.")] = 9,
    threads: Threads = 1,
    memory: Memory = True,
    as_json: AsRows = False,
) -> None:
    """What keeping masks costs a training step of ResNet-18: without, with Sparse, with a multiplication by hand."""
    from sparseflow.cli.bench import run_overhead

    run_overhead(
        console,
        batch,
        tuple(optimizer or ("momentum", "adam")),
        density,
        as_json=as_json,
        rounds=rounds,
        threads=threads,
        memory=memory,
    )


@bench_app.command()
def figure(
    out: Annotated[Path, typer.Option("--out", "-o", help="An .svg, .png or .pdf file.")],
    density: Annotated[str, typer.Option(metavar="D,...", help="Densities; default 0.01 to 0.5.")] = "",
    optimizer: Annotated[str, typer.Option(help="Optimiser.")] = "sgd",
    batch: Annotated[int, typer.Option(min=1)] = 128,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 4,
    rounds: Annotated[int, typer.Option(min=2, help="Timed steps of each implementation.")] = 9,
    threads: Threads = 1,
    as_json: AsRows = False,
) -> None:
    """Draw a training step's time against density: masked, compact, dense twin, and the sparse libraries."""
    from sparseflow.cli.bench import run_figure

    run_figure(
        console,
        out,
        optimizer,
        density,
        batch=batch,
        depth=depth,
        as_json=as_json,
        rounds=rounds,
        threads=threads,
    )


@bench_app.command()
def sweep(
    study: Annotated[str, typer.Option(help="digits, or fashion-mnist (one cell of it).")] = "digits",
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: digits 50, fashion-mnist 1.")] = None,
    train_limit: Annotated[int | None, typer.Option(min=1, help="Training examples; default: all.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds per cell and width; default 3.")] = None,
    points: Annotated[
        int | None, typer.Option(min=0, help="Measuring points of a run; default: digits 11, fashion-mnist 0.")
    ] = None,
    jobs: Annotated[str, typer.Option(metavar="N,...", help="Worker processes of sparseflow.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="How often each command is run.")] = 1,
    plain: Annotated[Path | None, typer.Option(help="The plain script; default: benchmarks/plain_sweep.py.")] = None,
    data_root: Root = None,
    as_json: AsRows = False,
) -> None:
    """A whole study against a plain script that trains the same networks (one thread, a DataLoader)."""
    from sparseflow.cli.bench import run_sweep

    run_sweep(
        console,
        study,
        jobs,
        as_json=as_json,
        epochs=epochs,
        train_limit=train_limit,
        seeds=seeds,
        points=points,
        rounds=rounds,
        plain=plain,
        data_root=data_root,
    )
