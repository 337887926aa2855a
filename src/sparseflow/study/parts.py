"""Results of an analysis in a folder, part by part: written at once, and found again by all that they depend on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparseflow.core import BadStore, replacing
from sparseflow.data.rows import RowFile
from sparseflow.measure.curvature import Symmetric
from sparseflow.study.place import has_results
from sparseflow.study.spec import content_hash

Key = Mapping[str, Any]
"""All that a part depends on, as JSON: the network's digest, the examples, the options, the fingerprint."""

BLOCK = 32
"""Columns of a matrix that are computed, and written, together: what a kill costs at most."""


class PartFile:
    """`parts.jsonl` of a folder: a line for each part, so a kill costs the part that it meets.

    Parts of other settings may lie in the same file, since a part's key holds all that it depends on.

    Raises:
        BadStore: if the folder holds a study, the file is damaged, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        if has_results(folder):
            raise BadStore(f"{folder} holds the results of a study; give the analysis another --out")
        self.folder = folder
        self._path = folder / "parts.jsonl"
        self._found: dict[str, Any] = {}
        try:
            if self._path.exists():
                self._read()
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise BadStore(f"cannot write to the output folder {folder}: {error.strerror}") from None

    def take(self, key: Key, make: Callable[[], Any]) -> Any:
        """The part of that key, made and written if the file does not have it; what JSON can say, floats bit for bit.

        Raises:
            BadStore: if it cannot be written.
        """
        name = content_hash(key)
        if name not in self._found:
            line = json.dumps({"part": name, "of": key, "is": make()})
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                raise BadStore(f"cannot write {self._path}: {error.strerror}") from None
            self._found[name] = json.loads(line)["is"]
        return self._found[name]

    def matrix(
        self, key: Key, hessian: Symmetric, progress: Callable[[int, int], None] = lambda done, size: None
    ) -> npt.NDArray[np.float64]:
        """The whole matrix, (size, size), symmetrised; its columns are written as they come.

        The file is as large as the matrix; it can go once what follows from the matrix is a part (`forget`).

        Raises:
            BadStore: if it cannot be written.
        """
        path, size = self._matrix_path(key), hessian.size
        done = (max(0, path.stat().st_size - 128) // (8 * size)) // BLOCK * BLOCK if path.exists() else 0
        try:
            with RowFile(path, size, (size,), np.dtype(np.float64), done) as file:
                for some in torch.arange(done, size).split(BLOCK):
                    units = torch.zeros(size, len(some), dtype=hessian.dtype, device=hessian.device)
                    units[some, range(len(some))] = 1.0
                    file.append(hessian.matmat(units).T.double().cpu().numpy())
                    progress(int(some[-1]) + 1, size)
            found: npt.NDArray[np.float64] = np.load(path)
        except OSError as error:
            raise BadStore(f"cannot write {path}: {error.strerror}") from None
        found += found.T.copy()
        found /= 2
        return found

    def forget(self, key: Key) -> None:
        """Remove the matrix of that key."""
        self._matrix_path(key).unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def _matrix_path(self, key: Key) -> Path:
        return self.folder / f"matrix-{content_hash(key)[:16]}.npy"

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line was cut off by a kill
            with replacing(self._path) as aside:
                aside.write_text(whole, encoding="utf-8")
        try:
            for line in whole.splitlines():
                content = json.loads(line)
                self._found[content["part"]] = content["is"]
        except (ValueError, KeyError, TypeError):
            raise BadStore(f"{self._path} is damaged; remove it, or give another --out") from None
