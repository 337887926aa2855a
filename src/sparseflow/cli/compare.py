"""`sparseflow compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparseflow.cli.progress import Reading, Show, duration
from sparseflow.cli.setup import facts_of, surroundings_for
from sparseflow.core import SparseflowError
from sparseflow.report import write_report
from sparseflow.study import (
    Cell,
    CompareSpec,
    DataCache,
    DataFacts,
    Estimator,
    RunSpec,
    Store,
    Surroundings,
    active_per_layer,
    assign,
    cells,
    drive,
    read_preset,
    runs_of,
    validate,
)


def run_comparison(
    console: Console,
    name: str,
    out: Path | None,
    jobs: int,
    seeds: int | None,
    sets: list[str],
    data_root: str | None,
    device: str,
    checkpoint_every: float,
    keep: bool,
    *,
    dry_run: bool,
) -> None:
    """Carry out a comparison and write its report, or say what it would take."""
    extra = [f"compare.seeds={seeds}"] if seeds is not None else []
    spec = validate(CompareSpec, assign(read_preset(name), [*sets, *extra]))
    out = out or Path("runs") / Path(name).stem
    surroundings = surroundings_for(out, data_root, device, checkpoint_every, keep=keep)
    with Reading(console) as watch:
        cache = DataCache(surroundings, watch)
        facts = facts_of(spec, cache)
    table = cells(spec, facts)
    runs = list(runs_of(table))
    if dry_run:
        _dry_run(console, table, facts, surroundings, cache, jobs)
        return
    for note in facts.notes:
        console.print(f"note: {note}")
    console.print(f"{spec.title}: {len(table)} cells, {len(runs)} runs, {jobs} worker{'s' if jobs > 1 else ''}")
    places = {
        run.name: f"{cell.optimizer} {cell.variant}, {member}"
        for cell in table
        for pair in cell.pairs
        for member, run in pair.members()
    }
    pages: list[Path] = []

    def finish(store: Store) -> None:
        pages.append(write_report(store, out))

    study = (spec.study_name, "compare", {"spec": spec.changes(), "facts": asdict(facts)})
    try:
        with Show(console, places) as show:
            tally = drive(
                runs,
                out,
                surroundings,
                jobs,
                show,
                study=study,
                data_digest=facts.digest,
                shape=(facts.input_shape, facts.classes),
                finish=finish,
            )
    finally:
        for page in pages:
            console.print(f"report: {page}")
    console.print(f"{tally.total} runs, {tally.executed} of them executed now")
    if tally.failed:
        run, error = next(iter(tally.failed.items()))
        last = error.strip().splitlines()[-1]
        raise SparseflowError(
            f"{len(tally.failed)} of {tally.total} runs failed, first {run}: {last} (the report lists all; the same "
            "command tries them again)"
        )


def _dry_run(
    console: Console, table: list[Cell], facts: DataFacts, surroundings: Surroundings, cache: DataCache, jobs: int
) -> None:
    runs = list(runs_of(table))
    estimator = Estimator(surroundings, cache)
    with console.status("timing a few steps of each kind of run") as status:
        total = estimator.seconds(
            runs, lambda done, of: status.update(f"timing a few steps of each kind of run: {done} of {of}")
        )
    widths = Table(title="Active weights of every pair, layer by layer", title_justify="left", box=None, pad_edge=False)
    for column in ("dense width", "active weights per layer", "total", "sparse = dense", "step ms, sparse", "dense"):
        widths.add_column(column, justify="right", no_wrap=column == "total")
    seen = set()
    for pair in sorted((pair for cell in table for pair in cell.pairs), key=lambda pair: pair.dense_width):
        sparse, dense = _counts(pair.sparse, facts), _counts(pair.dense, facts)
        if (pair.dense_width, sparse, dense) in seen:
            continue
        seen.add((pair.dense_width, sparse, dense))
        same = "yes" if sparse == dense else f"NO, dense: {' + '.join(f'{n:,}' for n in dense)}"
        times = [f"{estimator.step_ms(run):.2f}" for run in (pair.sparse, pair.dense)]
        widths.add_row(str(pair.dense_width), " + ".join(f"{n:,}" for n in sparse), f"{sum(sparse):,}", same, *times)
    console.print(widths)
    workers = min(jobs, len(runs))
    console.print(
        f"{len(table)} cells x {len(table[0].pairs)} pairs: {len(runs)} runs; estimated {duration(total / workers)} "
        f"with {workers} worker{'s' if workers > 1 else ''} ({duration(total)} of work)"
    )


def _counts(run: RunSpec, facts: DataFacts) -> tuple[int, ...]:
    return tuple(active_per_layer(run, facts.input_shape, facts.classes).values())
