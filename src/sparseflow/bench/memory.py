"""Peak memory of one implementation, taken in a fresh process."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing as mp
from collections.abc import Callable
from contextlib import suppress
from math import nan
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sparseflow.bench.timing import thread_limit
from sparseflow.core import SparseflowError

Make = Callable[..., Callable[[], object]]
"""A function of a module, which builds what is then called."""


def peak_mib(
    make: Make, arguments: tuple[Any, ...], small: tuple[Any, ...], *, threads: int = 1, building: bool = True
) -> float:
    """Highest resident memory while a fresh process builds `make(*arguments)` and calls it three times.

    Args:
        small: other arguments of `make`; a call built from them comes before the level is taken, so that kernels and
            libraries that load on first use count as imports.
        building: count the memory that building takes in passing, such as the random permutation behind a mask.

    Returns:
        MiB above the level after imports; NaN where the system has no /proc, or the process was killed.

    Raises:
        SparseflowError: with the child's error.
    """
    # A server process imports once and forks: as fresh as a spawned process, in a tenth of the time.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([__name__, make.__module__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, make, arguments, small, threads, building))
    process.start()
    theirs.close()
    try:
        peak, error = ours.recv()
    except EOFError:
        return nan
    finally:
        process.join()
        ours.close()
    if error:
        raise SparseflowError(f"memory could not be measured: {error}")
    return float(peak)


def _measure(
    pipe: Connection, make: Make, arguments: tuple[Any, ...], small: tuple[Any, ...], threads: int, building: bool
) -> None:
    try:
        pipe.send((_peak(make, arguments, small, threads, building), ""))
    except Exception as error:  # told to the parent, whatever it is
        pipe.send((nan, f"{type(error).__name__}: {error}"))


def _peak(make: Make, arguments: tuple[Any, ...], small: tuple[Any, ...], threads: int, building: bool) -> float:
    with thread_limit(threads):
        make(*small)()
        _settle()
        level = resident_mib("VmRSS")
        call = make(*arguments)
        if not building:
            _settle()
        with thread_limit(threads):  # again: building may have loaded a library
            for _ in range(3):
                call()
        return resident_mib("VmHWM") - level


def _settle() -> None:
    """Give back what is free, and let the highest memory start from here where the system can do that."""
    gc.collect()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # a system without it, or one that forbids it
        Path("/proc/self/clear_refs").write_text("5")


def resident_mib(what: str) -> float:
    """This process's resident memory now ("VmRSS") or at its highest ("VmHWM"); NaN where the system has no /proc.

    (`getrusage` would do for the highest, but a child starts with its parent's.)
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return nan
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024
