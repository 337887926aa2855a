"""What travels between a driver and workers that share no folder with it: files of runs, and data sets."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparseflow.core import SparseflowError, replacing
from sparseflow.data import Dataset, Split
from sparseflow.data.streamed import StreamedSplit
from sparseflow.study.lineage import predecessor, rewound_to
from sparseflow.study.run import DataCache
from sparseflow.study.sections import DataSpec
from sparseflow.study.spec import RunSpec
from sparseflow.study.surroundings import Surroundings

Parcel = dict[str, bytes]
"""File name -> content."""

DataKey = tuple[str, int | None]
"""A data set's name and image size: what two runs that read the same one have in common."""


def pack(paths: Iterable[Path | None]) -> Parcel:
    """The files among `paths` that are there."""
    parcel = {}
    for path in paths:
        if path is not None:
            with suppress(FileNotFoundError):
                parcel[path.name] = path.read_bytes()
    return parcel


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write the files of a parcel: each is whole or not there."""
    for name, content in parcel.items():
        with replacing(folder / name) as aside:
            aside.write_bytes(content)


def needed(runs: Iterable[RunSpec], surroundings: Surroundings) -> list[Path | None]:
    """Files that runs go on from, or that others have left for them to begin with."""
    paths: list[Path | None] = []
    for run in runs:
        paths += surroundings.passing_paths(run.name)
        if (before := predecessor(run)) is not None:
            paths.append(surroundings.final_path(before.name))
        if (start := rewound_to(run)) is not None:
            paths.append(surroundings.rewind_path(start[0].name, start[1]))
    return paths


def named_files(runs: Iterable[RunSpec], surroundings: Surroundings) -> Parcel:
    """Files that specifications name, by the name that they have there."""
    named = {run.mask.file for run in runs if run.mask.file is not None}
    found = {}
    for name in named:
        with suppress(OSError):  # the run says what it misses
            found[name] = surroundings.file(name).read_bytes()
    return found


@dataclass(frozen=True)
class Shipped:
    """A data set that lies in memory, as arrays that can be mapped where they arrive."""

    arrays: Mapping[str, Any]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, dataset: Dataset) -> Shipped:
        arrays: dict[str, Any] = {}
        facts: dict[str, Any] = {}
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            arrays |= {f"{name}.x": split.x.contiguous().numpy(), f"{name}.y": split.y.contiguous().numpy()}
            facts[f"{name}.margin"] = split.margin
        facts |= {name: getattr(dataset, name) for name in _FACTS}
        return cls(arrays, facts | {"known_digest": dataset.digest})

    def unpacked(self) -> Dataset:
        """The data set, on the very memory of the arrays."""

        def split(name: str) -> Split:
            x, y = _tensor(self.arrays[f"{name}.x"]), _tensor(self.arrays[f"{name}.y"])
            return Split(x, y, self.facts[f"{name}.margin"])

        rest = {name: self.facts[name] for name in (*_FACTS, "known_digest")}
        return Dataset(train=split("train"), test=split("test"), **rest)


_FACTS = ("name", "classes", "class_names", "flip_ok", "notes", "brightest")


def _tensor(array: Any) -> torch.Tensor:
    with warnings.catch_warnings():  # torch warns that the memory cannot be written, which nothing does to data
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(array))


@dataclass(frozen=True)
class ReadThere:
    """A data set that is mapped from files: too large to send, each machine has its own files of it."""

    digest: str


@dataclass(frozen=True)
class Unreadable:
    """A data set that the driver cannot read."""

    error: str


Consignment = Shipped | ReadThere | Unreadable


def consignment(data: DataSpec, cache: DataCache) -> Consignment:
    """How the data set of a run gets to a worker."""
    try:
        dataset = cache.dataset(data)
    except SparseflowError as error:
        return Unreadable(str(error))
    if any(isinstance(split, StreamedSplit) for split in (dataset.train, dataset.test)):
        return ReadThere(dataset.digest)
    return Shipped.of(dataset)


class ShippedCache(DataCache):
    """A worker's data: those that were sent to it."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.digests: dict[DataKey, str] = {}
        self.errors: dict[DataKey, str] = {}

    def receive(self, key: DataKey, what: Consignment) -> None:
        """Have a data set, or what to do in its place; one that is there already stays."""
        if isinstance(what, Unreadable):
            self.errors[key] = what.error
        elif isinstance(what, ReadThere):
            self.digests[key] = what.digest
        elif key not in self._datasets:
            self._datasets[key] = what.unpacked()

    def dataset(self, data: DataSpec) -> Dataset:
        key = (data.name, data.image_size)
        if key in self.errors:
            raise SparseflowError(self.errors[key])
        found = super().dataset(data)
        expected = self.digests.get(key, found.digest)
        if found.digest != expected:
            raise SparseflowError(
                f"the data set {data.name!r} on {os.uname().nodename} has the digest {found.digest}, but {expected} "
                "where the study was started; put the same files there"
            )
        return found


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process alone, removed at the end; those that killed processes left are removed before."""
    home = Path(tempfile.gettempdir()) / f"sparseflow-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / ".lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # between its making and its lock a folder must not pass for a left one
        for left in home.glob("*/.lock"):
            with left.open("a") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=home))
        held = (folder / ".lock").open("a")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()
