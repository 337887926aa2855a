"""Images in folders: one folder per class, below train/ and val/ or test/, or at the top."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparseflow.core import BadData
from sparseflow.data.stratify import fixed_split

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Of image files, in any case; files with another one, and names that begin with a dot, are passed over."""

HELD_OUT = ("val", "test")
"""Folders of test images beside train/; the first that is there counts (Tiny-ImageNet's test/ has no labels)."""

MAPPINGS = ("val_annotations.txt", "LOC_val_solution.csv")
"""File name -> class of a val/ without class folders: Tiny-ImageNet's own, and ImageNet's as Kaggle gives it."""

NAMES = ("words.txt", "LOC_synset_mapping.txt")
"""Identifier -> words, for class folders that bear WordNet identifiers."""


class Found(NamedTuple):
    """One image file (a data set has a million): its path below the data folder, and what tells whether it changed."""

    path: str
    size: int
    changed_ns: int


@dataclass(frozen=True)
class Files:
    """The image files of a split and their labels (N,), int64."""

    found: tuple[Found, ...]
    y: Tensor

    def __len__(self) -> int:
        return len(self.found)


@dataclass(frozen=True)
class Listing:
    """What a folder of images holds; nothing of it has been decoded yet.

    Attributes:
        classes: names of the class folders, sorted; their places are the labels.
        class_names: the same, in words where the folder has them.
    """

    folder: Path
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    train: Files
    test: Files
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of every file's split, label, path, size and time of change, 16 hex digits."""
        hashed = hashlib.sha256("\0".join(self.classes).encode())
        for files in (self.train, self.test):
            hashed.update(b"\0split\0")
            for at, label in zip(files.found, files.y.tolist(), strict=True):
                hashed.update(f"{label}\0{at.path}\0{at.size}\0{at.changed_ns}\0".encode())
        return hashed.hexdigest()[:16]


def list_images(folder: Path) -> Listing:
    """The classes and image files of a data folder.

    With a train/ inside, that holds the training images and val/ or test/ the test images; without any of these, or
    without a train/, a fixed stratified 80/20 split of all images is made. Every folder in train/ (or at the top) is a
    class, with all images below it. The test images are in folders of the same names, or all in one folder with one of
    `MAPPINGS` in it or beside train/.

    Raises:
        BadData: if the folder is not so; names what is missing or in the way.
    """
    if not os.path.isdir(folder):
        raise BadData(f"{folder} is not a folder of images")
    divided = os.path.isdir(folder / "train")
    found = _class_folders(folder / "train" if divided else folder, folder)
    classes = tuple(found)
    labels = [label for label, images in enumerate(found.values()) for _ in images]
    train = Files(tuple(chain.from_iterable(found.values())), torch.tensor(labels))
    held_out = next((folder / name for name in HELD_OUT if divided and os.path.isdir(folder / name)), None)
    if held_out is None:
        if len(train) == 1:
            raise BadData(f"{folder}: one image cannot be split into training and test images")
        train, test = (_some(train, at) for at in fixed_split(train.y))
        note = f"no {' or '.join(f'{name}/' for name in (HELD_OUT if divided else ('train',)))} in {folder.name}: "
        notes = [note + "a fixed stratified 80/20 split"]
    else:
        test = _held_out(folder, held_out, classes)
        missing = len(classes) - len(test.y.unique())
        notes = [f"{missing} of {len(classes)} classes have no image in {held_out.name}/"] if missing else []
    return Listing(folder, classes, _class_names(folder, classes), train, test, tuple(notes))


def _class_folders(folder: Path, top: Path) -> dict[str, list[Found]]:
    """Class -> its images, sorted; none of them without any."""
    found = {name: _images(folder / name, top) for name in _folders(folder)}
    if not found:
        raise BadData(f"{folder} has no folders; expected one per class, with its images")
    empty = [name for name, images in found.items() if not images]
    if empty:
        others = f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""
        raise BadData(
            f"{folder / empty[0]} has no images{others}; a class needs at least one ({', '.join(ENDINGS)}), "
            "and what is no class must not lie here"
        )
    return found


def _held_out(folder: Path, held_out: Path, classes: tuple[str, ...]) -> Files:
    label = {name: k for k, name in enumerate(classes)}
    inside = {name: _images(held_out / name, folder) for name in _folders(held_out)}
    if any(name in label for name in inside):
        strange = [name for name, images in inside.items() if images and name not in label]
        if strange:
            raise BadData(f"{held_out / strange[0]} has images, but train/ has no class {strange[0]!r}")
        found = [(image, label[name]) for name, images in inside.items() for image in images]
    else:
        path, mapping = _mapping(folder, held_out)
        found = [(image, _mapped(image, path, mapping, label)) for image in _images(held_out, folder)]
    if not found:
        raise BadData(f"{held_out} has no images ({', '.join(ENDINGS)})")
    return Files(tuple(image for image, _ in found), torch.tensor([y for _, y in found]))


def _mapping(folder: Path, held_out: Path) -> tuple[Path, dict[str, str]]:
    """Name of an image file, with or without ending -> class."""
    path = next((at / name for name in MAPPINGS for at in (held_out, folder) if os.path.isfile(at / name)), None)
    if path is None:
        raise BadData(
            f"{held_out} has no folder that is named as a class of train/, and neither it nor {folder} has "
            f"{' or '.join(MAPPINGS)}; test images come in class folders, or with one of these files"
        )
    rows = (line.partition("\t" if "\t" in line else ",") for line in _lines(path))
    return path, {name: rest.split()[0] for name, _, rest in rows if rest.strip()}


def _mapped(image: Found, path: Path, mapping: Mapping[str, str], label: Mapping[str, int]) -> int:
    name = os.path.basename(image.path)
    named = mapping.get(name, mapping.get(os.path.splitext(name)[0]))
    if named is None:
        raise BadData(f"{path} does not name the class of {image.path}")
    if named not in label:
        raise BadData(f"{path} says that {name} is of class {named!r}, which train/ does not have")
    return label[named]


def _class_names(folder: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    path = next((folder / name for name in NAMES if os.path.isfile(folder / name)), None)
    rows = [line.split(maxsplit=1) for line in _lines(path)] if path else []
    words = {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}
    return tuple(words.get(name, name) for name in classes)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: cannot be read as text ({error})") from error


def _folders(folder: Path) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    except OSError as error:
        raise BadData(f"{folder}: cannot be read ({error.strerror})") from error


def _images(folder: Path, top: Path) -> list[Found]:
    """The image files below a folder, in the order of their names."""
    return list(_walk(str(folder), len(str(top)) + 1))


def _walk(folder: str, start: int) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            inside = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in inside:
            if entry.is_dir():
                yield from _walk(entry.path, start)
            elif entry.name.lower().endswith(ENDINGS):
                about = entry.stat()
                yield Found(entry.path[start:], about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise BadData(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def _some(files: Files, at: Tensor) -> Files:
    return Files(tuple(files.found[k] for k in at.tolist()), files.y[at])
