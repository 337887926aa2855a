"""From a data set to what a run trains on: its images on a device, a validation split, normalised batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal

import torch
from torch import Tensor

from sparseflow.core import BadValue, check_positive, stream
from sparseflow.data.augment import crops
from sparseflow.data.dataset import Dataset, Split
from sparseflow.data.stratify import complement, stratified

Scaling = Literal["standard", "unit"]

_KINDS = {"train": "training", "test": "test"}

KEPT_BYTES = 64 * 2**20
"""Splits whose normalised inputs take at most this are normalised once."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Splits for one device, images still uint8, and the statistics that normalise them.

    Images in memory lie on the device; those of a `StreamedSplit` stay in their file and come there in batches.

    Attributes:
        val: None when no validation split was asked for.
        mean, std: what inputs are normalised by, per channel (C,) or feature (D,); on the device.
        dtype: type of the normalised inputs.
        digest: of the data set that this was prepared from, before any limit or validation split.
    """

    name: str
    train: Split
    val: Split | None
    test: Split
    mean: Tensor
    std: Tensor
    classes: int
    flip_ok: bool
    dtype: torch.dtype
    digest: str
    _kept: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    """Position of a split -> its normalised inputs."""

    @property
    def device(self) -> torch.device:
        return self.train.device

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) or (D,)."""
        return self.train.example_shape

    @property
    def input_size(self) -> int:
        """Values per example, C * H * W or D."""
        return prod(self.input_shape)

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std of a raw batch (B, C, H, W) or (B, D), as `dtype`; `x` is left unchanged.

        Computed in at least float32, so that half-precision inputs are rounded once, at the end.
        """
        shape = (-1, *(1,) * (len(self.input_shape) - 1))
        return (x - self.mean.view(shape)).div_(self.std.view(shape)).to(self.dtype)

    def normalised(self, split: Split) -> Tensor | None:
        """All inputs of one of the three splits, normalised once; None for another split or one too large to keep."""
        place = next((k for k, own in enumerate((self.train, self.val, self.test)) if split is own), None)
        if place is None or len(split) * self.input_size * self.dtype.itemsize > KEPT_BYTES:
            return None
        if place not in self._kept:
            self._kept[place] = self.normalise(split.whole().centred().x)
        return self._kept[place]

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised inputs and labels of `split` at `indices` (int64, on any device)."""
        ready = self.normalised(split)
        if ready is not None:
            at = indices.to(self.device)
            return ready.index_select(0, at), split.y.index_select(0, at)
        taken = split.take(indices).centred()
        return self.normalise(taken.x), taken.y

    def augmented(self, indices: Tensor, crop: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `batch` of the training split, each image cropped at random by the crop of that name.

        Mirrored too, where a mirrored image keeps its class.

        Raises:
            UnknownName: if the catalog of crops has no such name.
            BadValue: if the examples are not images.
        """
        taken = self.train.take(indices)
        cropped = crops[crop](taken.x, generator, margin=taken.margin, flip=self.flip_ok)
        return self.normalise(cropped), taken.y

    def example(self) -> Tensor:
        """The first training example as a normalised batch of one."""
        return self.normalise(self.train.take(torch.zeros(1, dtype=torch.int64)).centred().x)

    def probe(self, n: int = 1024) -> tuple[Tensor, Tensor]:
        """(x, y) of a fixed stratified sample of `n` training examples, or all if there are fewer; x raw.

        The stream does not depend on the run's seed: probes of different runs measure on the same examples (as far as
        their training splits agree), so that differences between runs are not differences between samples.

        Raises:
            BadValue: if `n` is less than 1.
        """
        check_positive("the number of probe examples", n)
        taken = self.train.take(stratified(self.train.y, min(n, len(self.train)), stream(0, "probe"))).centred()
        return taken.x, taken.y


def prepare(
    dataset: Dataset,
    *,
    train_limit: int | None = None,
    test_limit: int | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scaling: Scaling = "standard",
) -> Prepared:
    """Limit, split, measure and move a data set.

    Args:
        train_limit: keep this many training examples, stratified. Which ones does not depend on `seed`: all runs of a
            study see the same data, as they would with a data set of that size, and the noise over seeds is that of
            initialisation, masks and batch order only.
        test_limit: keep this many test examples, likewise.
        val_fraction: in [0, 1); this part of the (limited) training examples becomes the validation split, stratified
            and drawn from `stream(seed, "validation")`.
        dtype: floating-point type of the normalised inputs.
        scaling: "standard" normalises each channel or feature by its mean and standard deviation over the training
            split; "unit" maps pixels from 0 ... their brightest to [0, 1].

    Raises:
        BadValue: if a limit is below the number of classes or above the number of the split's examples, or
            `val_fraction` is out of range or leaves a split empty, or `dtype` is not a floating-point type, or unit
            scaling is asked of examples that are not images.
    """
    if not dtype.is_floating_point:
        raise BadValue(f"inputs are normalised to a floating-point type, got {dtype}")
    test = _limited(dataset, "test", test_limit)
    train, val = _without_validation(_limited(dataset, "train", train_limit), val_fraction, seed)
    mean, std = train.mean_std() if scaling == "standard" else _of_pixels(dataset)
    working = torch.promote_types(dtype, torch.float32)
    return Prepared(
        name=dataset.name,
        train=train.to(device),
        val=None if val is None else val.to(device),
        test=test.to(device),
        mean=mean.to(device, working),
        std=std.to(device, working),
        classes=dataset.classes,
        flip_ok=dataset.flip_ok,
        dtype=dtype,
        digest=dataset.digest,
    )


def _of_pixels(dataset: Dataset) -> tuple[Tensor, Tensor]:
    if len(dataset.input_shape) == 1:
        raise BadValue(f"scaling 'unit' is for images, and {dataset.name!r} has {dataset.input_shape[0]} features")
    channels = dataset.input_shape[0]
    return torch.zeros(channels, dtype=torch.float64), torch.full(
        (channels,), float(dataset.brightest), dtype=torch.float64
    )


def _limited(dataset: Dataset, name: Literal["train", "test"], limit: int | None) -> Split:
    split: Split = getattr(dataset, name)
    if limit is None:
        return split
    if limit < dataset.classes:
        raise BadValue(f"{name}_limit {limit} is less than the {dataset.classes} classes of {dataset.name!r}")
    if limit > len(split):
        raise BadValue(
            f"{name}_limit {limit} is more than the {len(split)} {_KINDS[name]} examples of {dataset.name!r}"
        )
    return split.part(stratified(split.y, limit, stream(0, f"{name}_limit")))


def _without_validation(train: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    if not 0.0 <= fraction < 1.0:
        raise BadValue(f"val_fraction must be in [0, 1), got {fraction:g}")
    if fraction == 0.0:
        return train, None
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise BadValue(
            f"val_fraction {fraction:g} of {len(train)} training examples puts {count} into validation; "
            "both splits need at least one"
        )
    chosen = stratified(train.y, count, stream(seed, "validation"))
    return train.part(complement(chosen, len(train))), train.part(chosen)
