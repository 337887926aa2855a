"""What the toolkit may use of the machine it runs on."""

from __future__ import annotations

import os
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
