"""Augmentation of whole batches of raw images on the device that holds them, drawn from a named stream."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseflow.core import BadValue, Catalog

PADDING = 4
AREA = (0.08, 1.0)
"""Of a resized crop, as a part of the image's area."""
LOG_RATIO = 0.28768207245178085
"""log(4/3): width over height of a resized crop lies in [3/4, 4/3]."""


class Crop(Protocol):
    """Draws a random crop of every image of a batch, each mirrored with probability 1/2 if `flip`.

    Takes (B, C, H, W), uint8 or floating point, with `margin` pixels of room on each side, and a CPU generator;
    gives new images (B, C, H - 2 margin, W - 2 margin) on the same device and scale.
    """

    def __call__(self, x: Tensor, generator: torch.Generator, *, margin: int, flip: bool) -> Tensor: ...


crops: Catalog[Crop] = Catalog("crop")


@crops.add("pad", cite="He et al. 2016, arXiv:1512.03385, sec. 4.2; Krizhevsky et al. 2012, sec. 4.1")
def padded_crop(x: Tensor, generator: torch.Generator, *, margin: int, flip: bool) -> Tensor:
    """A window of the example's size, moved by up to 4 pixels over a black border, or within the margin.

    Padding is for small images; those that are kept with a margin (ImageNet) have real pixels there instead.
    """
    return crop_flip(x, generator, padding=0 if margin else PADDING, margin=margin, flip=flip)


def crop_flip(x: Tensor, generator: torch.Generator, *, padding: int = 4, margin: int = 0, flip: bool) -> Tensor:
    """Random crops of the zero-padded images, each mirrored left to right with probability 1/2 if `flip`.

    Zero is the raw value 0 (black), as torchvision pads an image before it is normalised. Both draws are made whether
    or not they are used, so a study that switches `flip` off sees the same crops.

    Args:
        x: (B, C, H, W), uint8 or floating point, any device; left unchanged.
        generator: a CPU generator, so that the draws do not depend on the device. It gives (B, 2) row and column
            offsets in 0 .. 2 * (padding + margin), then (B,) bits for the mirror.
        padding: pixels of zeros on each side.
        margin: pixels of `x` on each side by which the crops are smaller than `x`.

    Returns:
        A new contiguous tensor (B, C, H - 2 margin, W - 2 margin) with the type and device of `x`.

    Raises:
        BadValue: if `x` is not a batch of images, or `padding` is negative.
    """
    _check("crop_flip", x)
    if padding < 0:
        raise BadValue(f"padding must be at least 0, got {padding}")
    B, C, height, width = x.shape
    H, W = height - 2 * margin, width - 2 * margin
    wide = width + 2 * padding
    offset_B2 = torch.randint(0, 2 * (padding + margin) + 1, (B, 2), generator=generator).to(x.device)
    mirror_B = torch.randint(0, 2, (B,), generator=generator).to(x.device).bool()
    column_BW = torch.arange(W, device=x.device).expand(B, W)
    if flip:
        column_BW = torch.where(mirror_B[:, None], W - 1 - column_BW, column_BW)
    column_BW = column_BW + offset_B2[:, 1:]
    row_BH = torch.arange(H, device=x.device) + offset_B2[:, :1]
    # One gather over the flattened pixels of each padded image; the channels share its index by a stride of zero.
    pixel_BHW = row_BH[:, :, None] * wide + column_BW[:, None, :]
    index = pixel_BHW.reshape(B, 1, H * W).expand(B, C, H * W)
    padded = F.pad(x, (padding,) * 4).reshape(B, C, (height + 2 * padding) * wide)
    return padded.gather(2, index).reshape(B, C, H, W)


@crops.add("resized", cite="Szegedy et al. 2015, arXiv:1409.4842, sec. 6")
def resized_crop(x: Tensor, generator: torch.Generator, *, margin: int, flip: bool) -> Tensor:
    """A window of 8 to 100 % of the area and ratio 3/4 to 4/3, resized to the image's size.

    The area is uniform and the logarithm of the ratio (width over height, of pixels) is uniform; a side longer than
    the image's is cut to it. The window's place is uniform. Bilinear, without a filter against aliasing: a window is
    at most the margins larger than the image. Both draws of a mirrored batch are made whether or not they are used.

    Args:
        x: (B, C, H, W), uint8 or floating point, any device; left unchanged. Windows lie anywhere in it.
        generator: a CPU generator: (B, 5) uniform numbers for area, ratio, row, column and mirror.

    Returns:
        (B, C, H - 2 margin, W - 2 margin), of the scale of `x`; float32 for uint8 images.

    Raises:
        BadValue: if `x` is not a batch of images.
    """
    _check("resized_crop", x)
    B, C, height, width = x.shape
    draw_5B = torch.rand(B, 5, generator=generator, dtype=torch.float64).T
    area = (AREA[0] + (AREA[1] - AREA[0]) * draw_5B[0]) * height * width
    ratio = torch.exp(LOG_RATIO * (2 * draw_5B[1] - 1))
    h = (area / ratio).sqrt().clamp(max=height)
    w = (area * ratio).sqrt().clamp(max=width)
    top, left = draw_5B[2] * (height - h), draw_5B[3] * (width - w)
    mirrored = torch.where(draw_5B[4] < 0.5, -1.0, 1.0) if flip else torch.ones(B, dtype=torch.float64)
    # From the output's coordinates to the input's, both in -1 .. 1 from edge to edge.
    theta_B23 = torch.zeros(B, 2, 3, dtype=torch.float64)
    theta_B23[:, 0, 0], theta_B23[:, 0, 2] = mirrored * w / width, (2 * left + w) / width - 1
    theta_B23[:, 1, 1], theta_B23[:, 1, 2] = h / height, (2 * top + h) / height - 1
    real = x if x.is_floating_point() else x.float()
    size = [B, C, height - 2 * margin, width - 2 * margin]
    grid = F.affine_grid(theta_B23.to(real.device, real.dtype), size, align_corners=False)
    return F.grid_sample(real, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _check(what: str, x: Tensor) -> None:
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise BadValue(
            f"{what} takes uint8 or floating-point images (B, C, H, W), got {x.dtype} of shape {tuple(x.shape)}"
        )
