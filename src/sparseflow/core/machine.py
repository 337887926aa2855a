"""What the toolkit may use of the machine it runs on."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "SPARSEFLOW_CACHE"


def user_cache() -> Path:
    """The user's folder for what can be made again: SPARSEFLOW_CACHE, else `sparseflow` in the system's cache folder.

    The system's is XDG_CACHE_HOME or ~/.cache; the folder need not exist yet.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparseflow"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """From now on memory that this process frees stays with it, for what it allocates next.

    Activations of some megabytes are freed and allocated anew in every step. glibc gives the system back what lies free
    at the end of the heap, twice the largest block or more, and fetches it page by page, zeroed, a moment later.
    Blocks beyond 32 MiB go back all the same; and on other systems this does nothing.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    with suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)  # the most it takes
        mallopt(trim_threshold, 2**31 - 1)
