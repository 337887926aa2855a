"""Measuring one implementation against another in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement: what was done, by which implementation, how long and in how much memory."""

    case: str
    implementation: str
    median_ms: float
    spread_ms: float
    """Half the distance between the quartiles."""
    peak_mib: float
    """Highest resident memory of a process that did this alone, above its level after imports; NaN if not measured."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Milliseconds of each call, the calls in turn, so that a machine whose speed drifts slows all of them alike."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    if len(times) < 2:
        return times[0], 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, (high - low) / 2


def resident_mib(what: str) -> float:
    """This process's resident memory now ("VmRSS") or at its highest ("VmHWM"); NaN where the system has no /proc.

    (`getrusage` would do for the highest, but a child starts with its parent's.)
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return nan
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024
