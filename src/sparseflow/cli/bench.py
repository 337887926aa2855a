"""`sparseflow bench`."""

from __future__ import annotations

import json
from math import isnan
from typing import Any

from rich.console import Console
from rich.table import Table

from sparseflow.bench import Row, bench_step


def run_step(console: Console, optimizers: tuple[str, ...], dense_width: int, *, as_json: bool, **options: Any) -> None:
    """Run the step benchmark and print its rows, with ratios to the dense twin beside the figures on a terminal."""
    if as_json:
        rows = bench_step(optimizers, dense_width, **options)
        print(json.dumps([_clean(row.as_dict()) for row in rows], indent=2))
        return
    with console.status("bench step") as status:
        rows = bench_step(optimizers, dense_width, report=lambda what: status.update(f"bench step: {what}"), **options)
    _print(console, rows, against="dense twin")


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in row.items()}


def _print(console: Console, rows: list[Row], against: str) -> None:
    for case in dict.fromkeys(row.case for row in rows):
        table = Table(title=case, title_justify="left", box=None, pad_edge=False)
        for column in ("implementation", "median ms", "spread ms", "peak MiB", f"x {against}", "x masked"):
            table.add_column(column, justify="left" if column == "implementation" else "right")
        group = [row for row in rows if row.case == case]
        twin = next(row.median_ms for row in group if row.implementation == against)
        masked = next(row.median_ms for row in group if row.implementation.startswith("masked"))
        for row in group:
            peak = "-" if isnan(row.peak_mib) else f"{row.peak_mib:.0f}"
            ratios = [f"{row.median_ms / twin:.2f}", f"{masked / row.median_ms:.2f} faster"]
            table.add_row(row.implementation, f"{row.median_ms:.2f}", f"{row.spread_ms:.2f}", peak, *ratios)
        console.print(table)
