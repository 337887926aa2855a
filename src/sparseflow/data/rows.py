"""An .npy array that is written row by row and can be gone on with after a kill."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt


class RowFile:
    """An .npy file (rows, *shape) of which the first `done` rows are kept and the others are to be appended.

    Written as a stream and not through a mapping, so that a full disk is an error and not a signal.
    """

    def __init__(self, path: Path, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any], done: int) -> None:
        self._file = path.open("r+b" if done else "w+b")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.seek(done * prod(shape) * dtype.itemsize, os.SEEK_CUR)
        self._file.truncate()

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write rows (n, *shape) after those that are there; when this returns they are on the disk."""
        self._file.write(np.ascontiguousarray(rows).data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
