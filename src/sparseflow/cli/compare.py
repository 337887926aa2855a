"""`sparseflow compare`, whatever kind of comparison it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sparseflow.cli.kinds import Asked, ask
from sparseflow.cli.progress import Reading, Show, duration
from sparseflow.cli.setup import Workers, executor_for, surroundings_for
from sparseflow.core import SparseflowError, cores
from sparseflow.report import write_report
from sparseflow.study import DataCache, Estimator, Planned, Store, Surroundings, drive


def run_comparison(
    console: Console,
    name: str,
    out: Path | None,
    workers: Workers,
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
    out = out or Path("runs") / Path(name).stem
    workers.gpus(device)  # what does not go together is said before data are read
    elsewhere = workers.ray is not None and not dry_run
    surroundings = surroundings_for(out, data_root, device, checkpoint_every, keep=keep, elsewhere=elsewhere)
    with Reading(console) as watch:
        cache = DataCache(replace(surroundings, device="cpu") if elsewhere else surroundings, watch)
        asked = ask(name, sets, seeds, cache)
    if dry_run:
        _dry_run(console, asked, surroundings, cache, workers.jobs or cores())
        return
    for note in asked.notes:
        console.print(f"note: {note}")
    pages: list[Path] = []

    def finish(store: Store) -> None:
        pages.append(write_report(store, out))

    try:
        with executor_for(workers, device, lambda text: console.print(f"ray: {text}")) as executor:
            jobs, where = executor.jobs, "" if workers.ray is None else f" on the Ray cluster {workers.ray}"
            console.print(f"{asked.title}: {asked.size}, {jobs} worker{'s' if jobs > 1 else ''}{where}")
            with Show(console, asked.places) as show:
                programme, study = Planned(asked.runs, asked.sequel), asked.study
                tally = drive(
                    programme, out, surroundings, executor, show, study=study, facts=asked.facts, finish=finish
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


def _dry_run(console: Console, asked: Asked, surroundings: Surroundings, cache: DataCache, jobs: int) -> None:
    estimator = Estimator(surroundings, cache)
    with console.status("timing a few steps of each kind of run") as status:
        total = estimator.seconds(
            asked.expected, lambda done, of: status.update(f"timing a few steps of each kind of run: {done} of {of}")
        )
    console.print(asked.overview(estimator))
    workers = min(jobs, len(asked.expected))
    console.print(
        f"{asked.size}; estimated {duration(total / workers)} "
        f"with {workers} worker{'s' if workers > 1 else ''} ({duration(total)} of work)"
    )
