"""`sparseflow bench`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparseflow.bench import OverheadCase, Row, bench_layer, bench_overhead, bench_step, bench_sweep
from sparseflow.bench.cases import read_conv, read_linear
from sparseflow.bench.figure import DENSITIES, NAMES, check_target, draw_scaling
from sparseflow.bench.layer import layer_cases
from sparseflow.bench.overhead import BATCHES
from sparseflow.bench.profile import Share, profile_step
from sparseflow.bench.step import step_cases
from sparseflow.core import BadValue
from sparseflow.sparse import kernels
from sparseflow.sparse.crossover import processor

N = TypeVar("N")

Report = Callable[[str], None]


def run_step(
    console: Console,
    model: str,
    optimizers: tuple[str, ...],
    names: str,
    *,
    profiled: bool,
    rounds: int,
    threads: int,
    memory: bool,
    as_json: bool,
    **case: Any,
) -> None:
    """Run the step benchmark, or profile a step, and print the rows."""
    cases = step_cases(model, optimizers, **case)
    with _progress("bench step") as (report, notes):
        if profiled:
            which = _words(names) or ["compact", "masked"]
            shares = [
                share
                for each in cases
                for share in profile_step(each, which, steps=rounds, threads=threads, report=report, note=notes.append)
            ]
        else:
            rows = bench_step(
                cases, _words(names), rounds=rounds, threads=threads, memory=memory, report=report, note=notes.append
            )
    if profiled:
        _show_shares(console, shares, notes, as_json=as_json)
    else:
        _show(console, rows, notes, as_json=as_json)


def _show_shares(console: Console, shares: Sequence[Share], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([share.as_dict() for share in shares], indent=2))
        console = Console(stderr=True, highlight=False, soft_wrap=True)
    for title in dict.fromkeys((s.case, s.implementation) for s in shares) if not as_json else ():
        table = Table(title=escape(", ".join(title)), title_justify="left", box=None, pad_edge=False)
        table.add_column("kind")
        for column in ("ms", "share"):
            table.add_column(column, justify="right")
        for share in (s for s in shares if (s.case, s.implementation) == title):
            table.add_row(share.kind, _number(share.ms), f"{100 * share.share:.1f} %")
        console.print(table)
        console.print()
    for note in notes:
        console.print(escape(f"note: {note}"))


def run_figure(
    console: Console,
    out: Path,
    optimizer: str,
    densities: str,
    *,
    batch: int,
    depth: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Time a step of the perceptron at each density, and draw it."""
    check_target(out)
    wanted = numbers("--density", densities, float) or list(DENSITIES)
    cases = {d: step_cases("mlp", (optimizer,), density=d, batch=batch, depth=depth) for d in wanted}
    groups: dict[float, list[Row]] = {}
    with _progress("bench figure") as (report, notes):
        for density, case in cases.items():
            groups[density] = bench_step(case, NAMES, memory=False, report=report, note=notes.append, **options)
    draw_scaling(groups, out)
    notes = [*dict.fromkeys(notes), f"drawn into {out}"]
    _show(console, [row for rows in groups.values() for row in rows], notes, as_json=as_json)


def run_layer(
    console: Console,
    linear: str,
    conv: str,
    everything: bool,
    batches: str,
    densities: str,
    names: str,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the layer benchmark and print its rows; lists are written with commas."""
    shapes = [*map(read_linear, _words(linear)), *map(read_conv, _words(conv))]
    wanted = numbers("--batch", batches, int), numbers("--density", densities, float)
    cases = layer_cases(shapes, *wanted, everything=everything)
    with _progress("bench layer") as (report, notes):
        rows = bench_layer(cases, _words(names), report=report, note=notes.append, **options)
    _show(console, rows, notes, as_json=as_json)


def run_overhead(
    console: Console, batches: str, optimizers: tuple[str, ...], density: float, *, as_json: bool, **options: Any
) -> None:
    """Run the overhead benchmark and print its rows; batches are written with commas."""
    wanted = numbers("--batch", batches, int) or BATCHES
    cases = [OverheadCase(batch, optimizer, density) for optimizer in optimizers for batch in wanted]
    with _progress("bench overhead") as (report, notes):
        rows = bench_overhead(cases, report=report, **options)
    _show(console, rows, notes, as_json=as_json)


def run_sweep(console: Console, study: str, jobs: str, *, as_json: bool, **options: Any) -> None:
    """Run the sweep benchmark and print its rows, and in words how many run-epochs a second they are."""
    counts = numbers("--jobs", jobs, int)
    with _progress("bench sweep") as (report, notes):
        rows = bench_sweep(study, jobs=counts, report=report, note=notes.append, **options)
    for row in rows:
        notes.append(f"{row.implementation}: {1e3 / row.median_ms:.1f} run-epochs per second")
    _show(console, rows, notes, as_json=as_json)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(what: str, text: str, kind: Callable[[str], N]) -> list[N]:
    """ "0.01,0.1" -> [0.01, 0.1]; "" -> [].

    Raises:
        BadValue: for a word that is no such number.
    """
    try:
        return [kind(word) for word in _words(text)]
    except ValueError:
        raise BadValue(f"{what} takes numbers with commas between them, got {text!r}") from None


LINE_SECONDS = 30.0
"""Without a terminal, a line is printed this often."""


@contextmanager
def _progress(what: str) -> Iterator[tuple[Report, list[str]]]:
    """Inside: what to tell of progress, and a list of notes for the end.

    Progress goes to standard error, so that standard output holds the rows alone.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda now: status.update(escape(f"{what}: {now}")), []
        return
    last = time.monotonic()

    def line(now: str) -> None:
        nonlocal last
        if time.monotonic() - last > LINE_SECONDS:
            last = time.monotonic()
            console.print(escape(f"{what}: {now}"))

    yield line, []


def _show(console: Console, rows: Sequence[Row], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_clean(row.as_dict()) for row in rows], indent=2))
        console = Console(stderr=True, highlight=False, soft_wrap=True)
    else:
        for case in dict.fromkeys(row.case for row in rows):
            console.print(_table(case, [row for row in rows if row.case == case]))
            console.print()
    # Ratios differ between processors more than between any two kernels.
    here = f"{processor()}; sparse kernels {kernels()}, torch's {torch.backends.cpu.get_cpu_capability()}"
    for note in [*notes, here]:
        console.print(escape(f"note: {note}"))


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in row.items()}


AGAINST = (
    ("x dense twin", "dense twin", False),
    ("x without masks", "without masks", False),
    ("faster than masked", "masked", True),
    ("faster than dense", "dense", True),
    ("faster than plain script", "plain script", True),
    ("compact is faster by", "compact", False),
    ("compact, batch-major, by", "compact, batch-major", False),
)
"""Columns of ratios: (header, implementation, whether its time is divided by the row's or the other way round)."""


def _table(case: str, rows: Sequence[Row]) -> Table:
    """One case: its rows, and ratios to whichever of the references are among them."""
    table = Table(title=escape(case), title_justify="left", box=None, pad_edge=False)
    median = {row.implementation.partition(" (")[0]: row.median_ms for row in rows}
    columns = [(header, median[name], inverse) for header, name, inverse in AGAINST if name in median]
    for column in ("implementation", "median ms", "spread ms", "peak MiB", *(header for header, _, _ in columns)):
        table.add_column(column, justify="left" if column == "implementation" else "right")
    for row in rows:
        figures = [_number(row.median_ms), _number(row.spread_ms), _number(row.peak_mib)]
        ratios = [f"{(ref / row.median_ms if inverse else row.median_ms / ref):.2f}" for _, ref, inverse in columns]
        table.add_row(row.implementation, *figures, *ratios)
    return table


def _number(value: float) -> str:
    """Three significant digits, "-" where nothing was measured."""
    if isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
