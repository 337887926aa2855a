"""Splits whose images stay in a file: batches are gathered from a mapping of it, and nothing else is read."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparseflow.core import BadData, BadValue
from sparseflow.data.dataset import Split
from sparseflow.data.statistics import from_sums

ON_DEVICE_BYTES = 2 * 2**30
"""A split that takes at most this is copied to the accelerator that trains. On the CPU none is: processes that map one
file share its pages, and a gather from them costs what one from a tensor costs."""


class MappedImages:
    """The uint8 images (N, C, H, W) of an .npy file, mapped for reading; any size, whatever the memory.

    Attributes:
        images: reads from the file when touched; writing to it ends the process.

    Raises:
        BadData: if the file is not such an array, or is shorter than it says.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                np.lib.format.read_magic(file)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                raise BadData(f"{path}: not an array of images ({error})") from error
            self._start = file.tell()
            if dtype != np.uint8 or fortran or len(shape) != 4 or not shape[0]:
                raise BadData(f"{path}: expected uint8 images (N, C, H, W), found {dtype} {shape}")
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._mapping) < self._start + prod(shape):
            raise BadData(f"{path} is cut short: {len(self._mapping):,} of {self._start + prod(shape):,} bytes")
        self._row_bytes = prod(shape[1:])
        with warnings.catch_warnings():  # torch warns that the memory cannot be written, which is what is wanted
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(self._mapping, dtype=torch.uint8, offset=self._start, count=prod(shape))
        self.images = flat.view(shape)

    def announce(self, rows: Tensor) -> None:
        """Have the system begin to read these rows; returns at once.

        Without it each page is waited for when it is touched: a batch of 128 images of 192 KiB from a solid-state disk
        took 280 ms, announced one batch ahead 20 ms; a thread that gathers one batch ahead left 110 ms at best.
        """
        for row in rows.tolist():
            start = self._start + row * self._row_bytes
            page = start - start % mmap.PAGESIZE
            self._mapping.madvise(mmap.MADV_WILLNEED, page, start + self._row_bytes - page)


@dataclass(frozen=True, eq=False)
class StreamedSplit(Split):
    """A split of images in a file; `x` is the whole mapped file, on the CPU wherever the batches go.

    Attributes:
        rows: (n,) int64 on the CPU, which images of the file are this split's, one per label; None: all.
        mapped: what `x` is a mapping of.
        sums: (N, C, 2) int64, `statistics.pixel_sums` of the images in the file.
    """

    _: KW_ONLY
    mapped: MappedImages
    sums: Tensor
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sums.shape != (*self.x.shape[:2], 2):
            raise BadValue(f"the sums of {tuple(self.x.shape)} images cannot have shape {tuple(self.sums.shape)}")

    def _examples(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def _rows(self, indices: Tensor) -> Tensor:
        at = indices.cpu()
        return at if self.rows is None else self.rows.index_select(0, at)

    def take(self, indices: Tensor) -> Split:
        images = self.x.index_select(0, self._rows(indices)).to(self.device)
        return Split(images, self.y.index_select(0, indices.to(self.device)), self.margin)

    def part(self, indices: Tensor) -> StreamedSplit:
        return replace(self, y=self.y.index_select(0, indices.to(self.device)), rows=self._rows(indices))

    def whole(self) -> Split:
        return self.take(torch.arange(len(self)))

    def announced(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        for k, part in enumerate(parts):
            for ahead in parts[k : k + 2] if k == 0 else parts[k + 1 : k + 2]:
                self.mapped.announce(self._rows(ahead))
            yield part

    def mean_std(self) -> tuple[Tensor, Tensor]:
        sums = self.sums if self.rows is None else self.sums.index_select(0, self.rows)
        return from_sums(sums.sum(0), len(self) * self.x[0, 0].numel())

    def to(self, device: torch.device | str) -> Split:
        there = replace(self, y=self.y.to(device))
        small = len(self) * self.x[0].numel() <= ON_DEVICE_BYTES
        return there.whole() if small and there.device.type != "cpu" else there
