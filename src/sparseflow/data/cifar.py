"""CIFAR-10 and CIFAR-100 in their authors' python version: pickled batches in a folder, or inside the tar.gz."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparseflow.core import BadData
from sparseflow.data.dataset import Split
from sparseflow.data.files import check_labels
from sparseflow.data.pickles import read_pickle

_ROW = 3 * 32 * 32  # 1,024 red values row by row, then green, then blue
_MOST_BYTES = 1 << 29  # of one file inside an archive; the largest original has 155 MB


def read_files(source: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The pickles named `wanted` in a folder or a .tar.gz, by name; those that are absent are left out.

    Raises:
        BadData: if a file or the archive is damaged.
    """
    if source.is_dir():
        return _from_folder(source, wanted)
    try:
        return _from_archive(source, wanted)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BadData(f"{source}: damaged or cut-short archive ({error})") from error


def read_split(
    source: Path, files: Mapping[str, Mapping[str, Any]], names: Sequence[str], labels: str, classes: int
) -> Split:
    """The batches `names` one after the other, those that are present, as images (N, 3, 32, 32).

    Args:
        files: what `read_files` gave for `source`.
        labels: key of the labels, "labels" or "fine_labels".

    Raises:
        BadData: if none of the batches is present, or one is not what it should be.
    """
    present = [name for name in names if name in files]
    if not present:
        raise BadData(f"{source} has no {' or '.join(names)}")
    batches = [_batch(f"{source}/{name}", files[name], labels, classes) for name in present]
    images, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Split(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.from_numpy(y))


def read_class_names(
    source: Path, files: Mapping[str, Mapping[str, Any]], name: str, key: str, classes: int
) -> tuple[str, ...] | None:
    """The class names that the meta file `name` lists under `key`, or None without such a file.

    Raises:
        BadData: if the file does not list one name per class.
    """
    if name not in files:
        return None
    listed = files[name].get(key)
    if not isinstance(listed, list) or not all(isinstance(item, bytes | str) for item in listed):
        raise BadData(f"{source}/{name}: expected a list of class names under {key!r}")
    if len(listed) != classes:
        raise BadData(f"{source}/{name}: {len(listed)} class names under {key!r}, expected {classes}")
    return tuple(item.decode("latin1") if isinstance(item, bytes) else item for item in listed)


def _from_folder(folder: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in wanted:
        path = folder / name
        try:
            if path.is_file():
                with path.open("rb") as stream:
                    found[name] = read_pickle(stream, str(path))
        except OSError as error:
            raise BadData(f"{path}: cannot be read ({error.strerror or error})") from error
    return found


def _from_archive(path: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read in one pass, in the archive's order, with nothing written to disk."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name not in wanted or name in found or not member.isfile():
                continue
            if member.size > _MOST_BYTES:
                raise BadData(f"{path}/{name} announces {member.size:,} bytes, more than any CIFAR file has")
            stream = archive.extractfile(member)
            assert stream is not None  # a regular file
            content = stream.read()
            if len(content) < member.size:
                raise BadData(f"{path}/{name} is cut short: {len(content):,} of {member.size:,} bytes")
            found[name] = read_pickle(io.BytesIO(content), f"{path}/{name}")
    if not found:
        raise BadData(f"{path} has none of {', '.join(wanted)}")
    return found


def _batch(
    source: str, content: Mapping[str, Any], key: str, classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    missing = [wanted for wanted in ("data", key) if wanted not in content]
    if missing:
        raise BadData(f"{source}: no {' and no '.join(map(repr, missing))}; it has {', '.join(sorted(content))}")
    data = content["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _ROW:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise BadData(f"{source}: 'data' must be uint8 (N, {_ROW}), found {found}")
    labels = _integers(source, key, content[key])
    if len(labels) != len(data):
        raise BadData(f"{source}: {len(data)} images but {len(labels)} labels under {key!r}")
    if not len(data):
        raise BadData(f"{source} is empty: no images")
    return data, check_labels(source, labels, classes)


def _integers(source: str, key: str, labels: Any) -> npt.NDArray[np.int64]:
    if isinstance(labels, list) and all(type(label) is int and abs(label) < 1 << 62 for label in labels):
        return np.asarray(labels, dtype=np.int64)
    if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    raise BadData(f"{source}: {key!r} must be a list of integers")
