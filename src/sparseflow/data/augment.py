"""Augmentation of whole batches of raw images on the device that holds them, drawn from a named stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseflow.core import BadValue


def crop_flip(x: Tensor, generator: torch.Generator, *, padding: int = 4, flip: bool) -> Tensor:
    """Random crops of the zero-padded images, each mirrored left to right with probability 1/2 if `flip`.

    Zero is the raw value 0 (black), as torchvision pads an image before it is normalised. Both draws are made whether
    or not they are used, so a study that switches `flip` off sees the same crops.

    Args:
        x: (B, C, H, W), uint8 or floating point, any device; left unchanged.
        generator: a CPU generator, so that the draws do not depend on the device. It gives (B, 2) row and column
            offsets in 0 .. 2 * padding, then (B,) bits for the mirror.
        padding: pixels of zeros on each side.

    Returns:
        A new contiguous tensor with the shape, type and device of `x`.

    Raises:
        BadValue: if `x` is not a batch of images, or `padding` is negative.
    """
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise BadValue(
            f"crop_flip takes uint8 or floating-point images (B, C, H, W), got {x.dtype} of shape {tuple(x.shape)}"
        )
    B, C, H, W = x.shape
    if padding < 0:
        raise BadValue(f"padding must be at least 0, got {padding}")
    offset_B2 = torch.randint(0, 2 * padding + 1, (B, 2), generator=generator).to(x.device)
    mirror_B = torch.randint(0, 2, (B,), generator=generator).to(x.device).bool()
    column_BW = torch.arange(W, device=x.device).expand(B, W)
    if flip:
        column_BW = torch.where(mirror_B[:, None], W - 1 - column_BW, column_BW)
    column_BW = column_BW + offset_B2[:, 1:]
    row_BH = torch.arange(H, device=x.device) + offset_B2[:, :1]
    # One gather over the flattened pixels of each padded image; the channels share its index by a stride of zero.
    pixel_BHW = row_BH[:, :, None] * (W + 2 * padding) + column_BW[:, None, :]
    index = pixel_BHW.reshape(B, 1, H * W).expand(B, C, H * W)
    padded = F.pad(x, (padding,) * 4).reshape(B, C, (H + 2 * padding) * (W + 2 * padding))
    return padded.gather(2, index).reshape(B, C, H, W)
