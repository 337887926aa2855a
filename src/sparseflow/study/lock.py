"""One driver per output folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparseflow.core import BadStore, Busy


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder (made if need be) while inside; the system lets go of it when the process dies, however it dies.

    Raises:
        Busy: if another process holds it.
        BadStore: if the folder cannot be made or written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise BadStore(f"cannot write to the output folder {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise Busy(
                f"{folder} is in use by process {file.read().strip() or '?'}; wait for it or give another --out"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
