"""A data set in memory: a training and a test split, and what can be said about them."""

from __future__ import annotations

import hashlib
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

    Raises:
        BadValue: if the tensors have another type or shape, or differ in N.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        images = self.x.dtype == torch.uint8 and self.x.ndim == 4
        features = self.x.dtype == torch.float32 and self.x.ndim == 2
        if not (images or features):
            raise BadValue(
                f"x must be uint8 (N, C, H, W) or float32 (N, D), got {self.x.dtype} of shape {tuple(self.x.shape)}"
            )
        if self.y.dtype != torch.int64 or self.y.ndim != 1:
            raise BadValue(f"y must be int64 (N,), got {self.y.dtype} of shape {tuple(self.y.shape)}")
        if len(self.x) != len(self.y):
            raise BadValue(f"x has {len(self.x)} examples but y has {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor) -> Split:
        """The examples at `indices` (int64, on any device), in that order."""
        at = indices.to(self.x.device)
        return Split(self.x.index_select(0, at), self.y.index_select(0, at))

    def to(self, device: torch.device | str) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set.

    Attributes:
        classes: number of classes; labels are 0 .. classes - 1.
        class_names: one name per class, where the source gives them.
        flip_ok: whether a mirrored image still belongs to its class (a mirrored digit does not).
        notes: what a reader of results should know, such as that only a part of the training images is present.

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

    def __post_init__(self) -> None:
        for what, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise BadValue(f"data set {self.name!r} has no {what} examples")
            low, high = int(split.y.min()), int(split.y.max())
            if low < 0 or high >= self.classes:
                raise BadValue(
                    f"data set {self.name!r}: {what} labels span {low} .. {high}, expected 0 .. {self.classes - 1}"
                )
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise BadValue(
                f"data set {self.name!r}: training examples have shape {self.input_shape}, "
                f"test examples {tuple(self.test.x.shape[1:])}"
            )
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise BadValue(f"data set {self.name!r}: {len(self.class_names)} class names for {self.classes} classes")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) or (D,)."""
        return tuple(self.train.x.shape[1:])

    @property
    def input_size(self) -> int:
        """Values per example, C * H * W or D."""
        return prod(self.input_shape)

    @cached_property
    def _mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self.train.x)

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
        hashed = hashlib.sha256()
        for tensor in (self.train.x, self.train.y, self.test.x, self.test.y):
            hashed.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            hashed.update(tensor.detach().cpu().contiguous().numpy().data)
        return hashed.hexdigest()[:16]
