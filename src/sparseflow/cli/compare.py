"""`sparseflow compare`, whatever kind of comparison it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sparseflow.cli.asked import Asked, Compare
from sparseflow.cli.kinds import ask
from sparseflow.cli.progress import Reading, Show, counting, duration
from sparseflow.cli.setup import Workers, executor_for, surroundings_for
from sparseflow.core import SparseflowError, cores
from sparseflow.report import write_report
from sparseflow.study import DataCache, Estimator, Interrupted, Store, Surroundings, Tally, drive, server_url, store_of
from sparseflow.study.lock import locked


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
    server: str | None,
    dry_run: bool,
) -> None:
    """Carry out a comparison and write its report, or say what it would take."""
    out = out or Path("runs") / Path(name).stem
    server = None if server is None else server_url(server)
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
        tally = carry_out(console, asked, out, workers, surroundings, finish, server)
    finally:
        for page in pages[-1:]:
            console.print(f"report: {page}")
    tell(console, tally)


def carry_out(
    console: Console,
    asked: Asked,
    out: Path,
    workers: Workers,
    surroundings: Surroundings,
    finish: Callable[[Store], None],
    server: str | None = None,
) -> Tally:
    """Execute what is missing of a study, and compare its networks where it asks for that.

    Args:
        finish: told the store when the runs have ended, or are interrupted; and again after the comparison.

    Raises:
        Interrupted: on Ctrl-C.
    """
    with executor_for(workers, surroundings.device, lambda text: console.print(f"ray: {text}")) as executor:
        jobs, where = executor.jobs, "" if workers.ray is None else f" on the Ray cluster {workers.ray}"
        console.print(f"{asked.title}: {asked.size}, {jobs} worker{'s' if jobs > 1 else ''}{where}")
        with Show(console, asked.place, asked.split) as show:
            tally = drive(
                asked.programme,
                out,
                surroundings,
                executor,
                show,
                study=asked.study,
                facts=asked.facts,
                server=server,
                finish=finish,
            )
    if asked.compare is not None:
        _compare_networks(asked.compare, out, finish)
    return tally


def tell(console: Console, tally: Tally) -> None:
    """How many runs there were.

    Raises:
        SparseflowError: if some failed, with the first one's cause.
    """
    console.print(f"{tally.total} runs, {tally.executed} of them executed now")
    if tally.failed:
        run, error = next(iter(tally.failed.items()))
        last = error.strip().splitlines()[-1]
        raise SparseflowError(
            f"{len(tally.failed)} of {tally.total} runs failed, first {run}: {last} (the report lists all; the same "
            "command tries them again)"
        )


def _compare_networks(compare: Compare, out: Path, finish: Callable[[Store], None]) -> None:
    """What follows when the last run has ended, and the report again.

    Raises:
        Interrupted: on Ctrl-C.
    """
    with locked(out):
        store = store_of(out)
        try:
            if compare(store, out, counting):
                finish(store)
        except KeyboardInterrupt:
            raise Interrupted("interrupted while networks were compared; the same command goes on from there") from None
        finally:
            store.close()


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
