"""Mean and standard deviation per channel, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CHUNK = 4096  # rows widened to float64 at a time


def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Population mean and standard deviation of uint8 images (N, C, H, W) per channel, or of features (N, D) each.

    On the scale of the raw values; float64, shape (C,) or (D,). The standard deviation of a constant channel is given
    as 1, so that dividing by it leaves a constant instead of NaN.
    """
    if x.ndim == 2:
        return _of_features(x)
    return from_sums(_sums(x.unbind(1)), len(x) * x[0, 0].numel())


def pixel_sums(x_NCHW: Tensor) -> Tensor:
    """(N, C, 2) int64: the sum of each channel's values and of their squares, per uint8 image."""
    return _sums(x_NCHW.flatten(0, 1).unbind(0)).view(*x_NCHW.shape[:2], 2)


def _sums(channels: Sequence[Tensor]) -> Tensor:
    """(channels, 2) int64: the sum of each channel's uint8 values and of their squares, from its histogram."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in channels])
    values = torch.arange(256)
    return counts @ torch.stack([values, values * values], 1)


def from_sums(sums_C2: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """What `mean_std` gives for channels of `n` pixels, from the totals of their `pixel_sums`.

    The sums are integers, so no rounding depends on the order of the images, or on how they are held.
    """
    means, stds = [], []
    for total, squares in sums_C2.tolist():
        spread = n * squares - total * total
        means.append(total / n)
        stds.append(spread**0.5 / n if spread else 1.0)
    return torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64)


def _of_features(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Two passes. A constant feature gives exactly 0: equal float32 values add up without rounding in float64."""
    mean = torch.stack([rows.double().sum(0) for rows in torch.split(x_ND, _CHUNK)]).sum(0) / len(x_ND)
    squares = torch.stack([(rows.double() - mean).square().sum(0) for rows in torch.split(x_ND, _CHUNK)]).sum(0)
    std = (squares / len(x_ND)).sqrt()
    return mean, torch.where(std == 0, torch.ones_like(std), std)
