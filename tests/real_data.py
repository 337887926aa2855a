"""Where the real data sets are on this machine, if anywhere: tests that need them are skipped otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def real_data_root() -> Path | None:
    """The folder named by SPARSEFLOW_DATA, else `shared/data` beside the repository, else None."""
    given = os.environ.get("SPARSEFLOW_DATA")
    root = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root if root.is_dir() else None
