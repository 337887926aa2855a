"""Mean and standard deviation per channel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 4096  # rows widened to float64 at a time


def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Population mean and standard deviation of uint8 images (N, C, H, W) per channel, or of features (N, D) each.

    On the scale of the raw values; float64, shape (C,) or (D,). The standard deviation of a constant channel is given
    as 1, so that dividing by it leaves a constant instead of NaN.
    """
    return _of_images(x) if x.ndim == 4 else _of_features(x)


def _of_images(x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """From each channel's histogram: the sums are integers, so no rounding depends on the order of the images."""
    means, stds = [], []
    for channel in x_NCHW.unbind(1):
        counts: list[int] = torch.bincount(channel.flatten(), minlength=256).tolist()
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
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
