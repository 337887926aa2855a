"""Where a data set's files are, and the checks that readers of every format share."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadData

ROOT_VARIABLE = "SPARSEFLOW_DATA"


def find_source(
    root: Path | None, folder: str, files: Sequence[str], *, archive: str | None = None, others: Collection[str] = ()
) -> Path:
    """The folder (or archive) below `root` that holds a data set.

    Tried in turn: `root/folder`, `root` itself, `root/archive`; a folder counts if it has any of `files` (or
    folders of such a name), which may be compressed (`.gz`).

    Args:
        others: folder names of other data sets. `root` itself is not taken when it bears one: MNIST and Fashion-MNIST
            use the same file names, and one must not be read as the other.

    Raises:
        BadData: saying what was looked for and where.
    """
    if root is None:
        raise BadData(f"no data folder given: pass --data-root or set {ROOT_VARIABLE} to the folder that has {folder}/")
    if not os.path.isdir(root):  # os.path, since Path.is_dir raises where a folder may not be entered
        raise BadData(f"{root} is not a folder; --data-root or {ROOT_VARIABLE} must name the folder that has {folder}/")
    candidates = [root / folder]
    if root.resolve().name not in others:
        candidates.append(root)
    for candidate in candidates:
        if any(os.path.exists(candidate / f"{name}{suffix}") for name in files for suffix in ("", ".gz")):
            return candidate
    if archive is not None and os.path.isfile(root / archive):
        return root / archive
    places = " or ".join(str(candidate) for candidate in candidates)
    or_archive = f", nor {archive} in {root}" if archive else ""
    raise BadData(
        f"none of {', '.join(files)} in {places}{or_archive}; "
        f"--data-root or {ROOT_VARIABLE} must name the folder that has {folder}/"
    )


def check_labels(source: str, labels: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    """The labels as int64.

    Raises:
        BadData: if one is not in 0 .. classes - 1; names `source` and the first offender.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise BadData(
            f"{source}: labels must be 0 .. {classes - 1}, but label {wrong[0]} of {len(labels)} is {labels[wrong[0]]}"
        )
    return labels.astype(np.int64)


def partial_note(present: int, official: int, what: str = "training") -> tuple[str, ...]:
    """A note for a data set of which only a part is present, e.g. "10,000 of 50,000 training images"."""
    return () if present >= official else (f"{present:,} of {official:,} {what} images",)
