"""A data set: a training and a test split, and what can be said about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from sparseflow.core import BadValue
from sparseflow.data.statistics import mean_std


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and labels: x is uint8 images (N, C, H, W) or float32 features (N, D); y is int64 (N,).

    Attributes:
        margin: pixels on each side of an image that are room for random crops: an example is the centre
            (C, H - 2 margin, W - 2 margin). 0 for features.

    Raises:
        BadValue: if the tensors have another type or shape, or differ in N, or the margin leaves nothing.
    """

    x: Tensor
    y: Tensor
    margin: int = 0

    def __post_init__(self) -> None:
        images = self.x.dtype == torch.uint8 and self.x.ndim == 4
        features = self.x.dtype == torch.float32 and self.x.ndim == 2
        if not (images or features):
            raise BadValue(
                f"x must be uint8 (N, C, H, W) or float32 (N, D), got {self.x.dtype} of shape {tuple(self.x.shape)}"
            )
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise BadValue(f"y must be int64 (N,), got {self.y.dtype} of shape {tuple(self.y.shape)}")
        if self._examples() != len(self.y):
            raise BadValue(f"x has {self._examples()} examples but y has {len(self.y)} labels")
        if self.margin < 0 or (self.margin and (features or 2 * self.margin >= min(self.x.shape[2:]))):
            raise BadValue(f"a margin of {self.margin} does not fit into examples of shape {tuple(self.x.shape[1:])}")

    def _examples(self) -> int:
        return len(self.x)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def device(self) -> torch.device:
        """Where the examples that `take` gives lie."""
        return self.y.device

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example, without margin: (C, H, W) or (D,)."""
        return (*self.x.shape[1:2], *(size - 2 * self.margin for size in self.x.shape[2:]))

    def take(self, indices: Tensor) -> Split:
        """The examples at `indices` (int64, on any device), in that order, in memory on `device`."""
        at = indices.to(self.x.device)
        return Split(self.x.index_select(0, at), self.y.index_select(0, at), self.margin)

    def part(self, indices: Tensor) -> Split:
        """The examples at `indices` (int64, on any device) as a split of their own, held as this one is."""
        return self.take(indices)

    def centred(self) -> Split:
        """The examples without their margin; a view."""
        m = self.margin
        return Split(self.x[:, :, m:-m, m:-m], self.y) if m else self

    def whole(self) -> Split:
        """All examples, in memory on `device`; only for splits that are known to be small."""
        return self

    def announced(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """The parts (of indices, to be taken one after the other) in turn; what is not in memory is read ahead."""
        return iter(parts)

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all stored values, as `statistics.mean_std`."""
        return mean_std(self.x)

    def to(self, device: torch.device | str) -> Split:
        return Split(self.x.to(device), self.y.to(device), self.margin)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set.

    Attributes:
        classes: number of classes; labels are 0 .. classes - 1.
        class_names: one name per class, where the source gives them.
        flip_ok: whether a mirrored image still belongs to its class (a mirrored digit does not).
        notes: what a reader of results should know, such as that only a part of the training images is present.
        known_digest: the digest, where it was taken before; empty, it is taken when asked for.
        brightest: the largest value that a pixel can have.

    Raises:
        BadValue: if a split is empty, the splits differ in shape, a label is out of range, or the names do not match.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...] | None = None
    flip_ok: bool = False
    notes: tuple[str, ...] = ()
    known_digest: str = ""
    brightest: int = 255

    def __post_init__(self) -> None:
        for what, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise BadValue(f"data set {self.name!r} has no {what} examples")
            low, high = int(split.y.min()), int(split.y.max())
            if low < 0 or high >= self.classes:
                raise BadValue(
                    f"data set {self.name!r}: {what} labels span {low} .. {high}, expected 0 .. {self.classes - 1}"
                )
        if self.train.example_shape != self.test.example_shape:
            raise BadValue(
                f"data set {self.name!r}: training examples have shape {self.input_shape}, "
                f"test examples {self.test.example_shape}"
            )
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise BadValue(f"data set {self.name!r}: {len(self.class_names)} class names for {self.classes} classes")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) or (D,)."""
        return self.train.example_shape

    @property
    def input_size(self) -> int:
        """Values per example, C * H * W or D."""
        return prod(self.input_shape)

    @cached_property
    def _mean_std(self) -> tuple[Tensor, Tensor]:
        return self.train.mean_std()

    @property
    def mean(self) -> Tensor:
        """Mean per channel (or feature) of the training split, raw value scale, float64."""
        return self._mean_std[0]

    @property
    def std(self) -> Tensor:
        """Population standard deviation per channel (or feature) of the training split, float64; 1 where constant."""
        return self._mean_std[1]

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 over types, shapes and bytes of all four tensors."""
        return self.known_digest or digest_of(self.train, self.test)


def digest_of(train: Split, test: Split) -> str:
    """`Dataset.digest` of two whole splits; read as a stream where they are mapped from files."""
    hashed = hashlib.sha256()
    for tensor in (train.x, train.y, test.x, test.y):
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        hashed.update(tensor.detach().cpu().contiguous().numpy().data)
    return hashed.hexdigest()[:16]
