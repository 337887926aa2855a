"""Any classification data in one .npz file: arrays x and y, and optionally x_test and y_test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparseflow.core import BadData
from sparseflow.data.dataset import Dataset, Split
from sparseflow.data.files import check_labels
from sparseflow.data.stratify import fixed_split

_Arrays = dict[str, npt.NDArray[Any]]
_SPELLINGS = {"x": ("x", "x_train"), "y": ("y", "y_train"), "x_test": ("x_test",), "y_test": ("y_test",)}
_COLOURS = (1, 3)


def read_npz(path: Path) -> Dataset:
    """The data set in an .npz file, named after it.

    x (or x_train) holds uint8 images (N, H, W), (N, C, H, W) or (N, H, W, C), or numeric features (N, D). Four
    dimensions are read as channels first, unless only the last one is 1 or 3. y (or y_train) holds integer labels
    (N,); the classes are 0 .. max(y), and each of them must occur. Without x_test and y_test a fixed stratified 80/20
    split is made. Images are not mirrored by augmentation, since nothing says that their classes allow it.

    Raises:
        BadData: if the file is missing or damaged, or an array is missing or not as described.
    """
    arrays = _arrays(path)
    x, y = _examples(f"{path}: x", arrays["x"]), _labels(f"{path}: y", arrays["y"])
    _check_count(path, "x", x, "y", y)
    classes = _count_classes(path, y)
    train = Split(x, torch.from_numpy(y))
    if "x_test" in arrays:
        test = _test_split(path, arrays, train, classes)
        return Dataset(path.stem, train, test, classes)
    train_indices, test_indices = fixed_split(train.y)
    if not len(train_indices):
        raise BadData(f"{path}: one example cannot be split into training and test examples")
    note = f"no test arrays in {path.name}: a fixed stratified 80/20 split"
    return Dataset(path.stem, train.take(train_indices), train.take(test_indices), classes, notes=(note,))


def _arrays(path: Path) -> _Arrays:
    """The arrays by the first of their spellings; x and y always, x_test and y_test both or neither."""
    if not os.path.isfile(path):
        raise BadData(f"{path}: no such file")
    try:
        with path.open("rb") as stream:  # NumPy leaves a file open that it was given by name and could not read
            arrays = _chosen(path, np.load(stream, allow_pickle=False))
    except BadData:
        raise
    except ValueError as error:  # what NumPy raises for objects, and for a file of another format
        raise BadData(f"{path}: not an .npz of plain arrays ({error})") from error
    except Exception as error:  # a damaged zip file can fail in many ways
        raise BadData(f"{path}: damaged or unreadable .npz ({type(error).__name__}: {error})") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out a member of another format as its bytes
            raise BadData(f"{path}: {key} is not a NumPy array")
    return arrays


def _chosen(path: Path, loaded: Any) -> _Arrays:
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise BadData(f"{path}: a single array, expected an .npz with arrays x and y")
    with loaded:
        held = set(loaded.files)
        chosen = {key: [name for name in names if name in held] for key, names in _SPELLINGS.items()}
        _check_keys(path, chosen, held)
        return {key: loaded[names[0]] for key, names in chosen.items() if names}


def _check_keys(path: Path, chosen: dict[str, list[str]], held: set[str]) -> None:
    for key in ("x", "y"):
        if len(chosen[key]) > 1:
            raise BadData(f"{path}: both {' and '.join(chosen[key])}; only one of them can be the training data")
        if not chosen[key]:
            raise BadData(
                f"{path}: no array {' or '.join(_SPELLINGS[key])}; it has {', '.join(sorted(held)) or 'none'}"
            )
    if bool(chosen["x_test"]) != bool(chosen["y_test"]):
        present, absent = ("x_test", "y_test") if chosen["x_test"] else ("y_test", "x_test")
        raise BadData(f"{path}: {present} without {absent}")


def _test_split(path: Path, arrays: _Arrays, train: Split, classes: int) -> Split:
    x, y = _examples(f"{path}: x_test", arrays["x_test"]), _labels(f"{path}: y_test", arrays["y_test"])
    _check_count(path, "x_test", x, "y_test", y)
    if x.shape[1:] != train.x.shape[1:]:
        raise BadData(
            f"{path}: examples of x_test have shape {tuple(x.shape[1:])}, those of x {tuple(train.x.shape[1:])}"
        )
    return Split(x, torch.from_numpy(check_labels(f"{path}: y_test", y, classes)))


def _examples(source: str, array: npt.NDArray[Any]) -> Tensor:
    if array.size == 0:
        raise BadData(f"{source} is empty, shape {array.shape}")
    if array.ndim == 2 and array.dtype.kind in "buif":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
            features = array.astype(np.float32)
        wrong = np.argwhere(~np.isfinite(features))
        if len(wrong):
            row, column = wrong[0]
            raise BadData(f"{source}[{row}, {column}] is {array[row, column]}, which is not a finite float32 number")
        return torch.from_numpy(features)
    if array.ndim in (3, 4) and array.dtype == np.uint8:
        if array.ndim == 3:
            array = array[:, None]
        elif array.shape[1] not in _COLOURS and array.shape[3] in _COLOURS:
            array = array.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.array(array, order="C"))
    raise BadData(
        f"{source} must be uint8 images (N, H, W), (N, C, H, W) or (N, H, W, C), or numeric features (N, D); "
        f"found {array.dtype} {array.shape}"
    )


def _labels(source: str, array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadData(f"{source} must be integer labels (N,), found {array.dtype} {array.shape}")
    if not len(array):
        raise BadData(f"{source} is empty")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 1 << 62:
        raise BadData(f"{source}: labels must count from 0, found {low} .. {high}")
    return array.astype(np.int64)


def _check_count(path: Path, x_name: str, x: Tensor, y_name: str, y: npt.NDArray[np.int64]) -> None:
    if len(x) != len(y):
        raise BadData(f"{path}: {x_name} has {len(x)} examples but {y_name} has {len(y)} labels")


def _count_classes(path: Path, y: npt.NDArray[np.int64]) -> int:
    """max + 1. A gap means labels that count from 1, or that are not classes at all; both would widen the network."""
    present = np.unique(y)
    classes = int(present[-1]) + 1
    if len(present) < classes:
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise BadData(f"{path}: labels of y go up to {classes - 1}, but no example has label {gap}")
    return classes
