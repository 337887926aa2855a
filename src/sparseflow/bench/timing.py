"""Measuring one implementation against another in one process."""

from __future__ import annotations

import importlib
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import ceil, nan
from typing import Any

import torch

from sparseflow.core import BadValue

SETTLING = 4
"""Rounds that are not counted, at most: see `interleaved`."""

_HARDLY_ANY = 100
"""Pages fetched from the system in one round: less than half a megabyte."""


@dataclass(frozen=True)
class Row:
    """One measurement: what was done, by which implementation, how long and in how much memory."""

    case: str
    implementation: str
    median_ms: float
    spread_ms: float
    """Half the distance between the quartiles; NaN of a single round."""
    peak_mib: float
    """Highest resident memory of a process that did this alone, above its level after imports; NaN if not measured.

    (Of a sweep: of all its processes together, imports included.)"""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2, turn_ms: float = 0.0, settling: int = 0
) -> dict[str, list[float]]:
    """Milliseconds of each call, the calls in turn, so that a machine whose speed drifts slows all of them alike.

    Args:
        settling: at most so many rounds come before and are not counted, until one fetches hardly any memory from the
            system. Turns cut up what the process holds, so it grows for some rounds, and fresh pages can cost more than
            a layer that moves some megabytes; a training loop has them behind it.
        turn_ms: a turn repeats a call until about so much time has passed, and counts the mean; one that is repeated
            is called once before. Short calls need it: in a training loop they find their own data in the caches, not
            what another implementation left there.

    Raises:
        BadValue: for fewer than one round.
    """
    if rounds < 1:
        raise BadValue(f"rounds must be at least 1, got {rounds}")
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        for _ in range(max(1, warm_up - 1)):
            call()
        once = 1e3 * (time.perf_counter() - start) / max(1, warm_up - 1)
        repeats[name] = max(1, ceil(turn_ms / max(once, 1e-3)))
    for _ in range(settling):
        before = _fetched_pages()
        for name, call in calls.items():
            _turn(call, repeats[name])
        if _fetched_pages() - before < _HARDLY_ANY:
            break
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_turn(call, repeats[name]))
    return times


def _turn(call: Callable[[], object], repeats: int) -> float:
    """Mean milliseconds of a call that is repeated, or of a single one."""
    if repeats > 1:
        call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return 1e3 * (time.perf_counter() - start) / repeats


def _fetched_pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    """The median and half the distance between the quartiles; one value has no spread (NaN)."""
    if len(times) < 2:
        return times[0], nan
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, (high - low) / 2


def fastest(times: Mapping[str, Sequence[float]], owner: Mapping[str, str]) -> list[str]:
    """Of each owner the label whose median is lowest; owners in the order of their first label.

    Args:
        owner: label -> whom it stands for, such as one form of an implementation -> the implementation.
    """
    best: dict[str, str] = {}
    for label, whose in owner.items():
        if whose not in best or median_and_spread(times[label])[0] < median_and_spread(times[best[whose]])[0]:
            best[whose] = label
    return list(best.values())


def threads_text(threads: int) -> str:
    return f"{threads} thread" + ("" if threads == 1 else "s")


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Inside, torch and every OpenMP library loaded so far use this many threads.

    (A rival may bring an OpenMP runtime of its own, which torch.set_num_threads does not reach.)

    Raises:
        BadValue: for less than one thread.
    """
    if threads < 1:
        raise BadValue(f"threads must be at least 1, got {threads}")
    pools = importlib.import_module("threadpoolctl")  # comes with scikit-learn; it has no types
    before = torch.get_num_threads()
    with pools.threadpool_limits(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
