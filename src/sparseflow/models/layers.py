"""The pieces that the networks are put together from: weight layers without hidden draws, norms, one unit of the three.

Biases start at 0 (torch draws them from its global generator), and stand only where no norm follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, check_positive
from sparseflow.models.activations import activations


def linear(into: int, out: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer whose bias starts at 0."""
    layer = nn.Linear(into, out, bias=bias)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def conv(
    into: int,
    out: int,
    size: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution with a kernel of `size` x `size`; a bias starts at 0.

    Args:
        padding: zeros on every side; by default as many as keep the image's size at stride 1.
    """
    padding = size // 2 if padding is None else padding
    layer = nn.Conv2d(into, out, size, stride=stride, padding=padding, groups=groups, bias=bias)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def flat_norm(name: str, width: int, affine: bool = True) -> nn.Module:
    """Normalisation of vectors of `width` units: "none", "batch" or "layer".

    Raises:
        BadValue: for another name.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm1d(width, affine=affine)
    if name == "layer":
        return nn.LayerNorm(width, elementwise_affine=affine)
    raise BadValue(f"norm must be one of none, batch, layer, got {name!r}")


@dataclass(frozen=True)
class Style:
    """What a convolutional network puts behind its convolutions.

    Attributes:
        activation: name in `models.activations`.
        norm: "batch" or "none".
        norm_affine: whether the normalisation has a learned scale and shift.

    Raises:
        BadValue: for another norm.
        UnknownName: for an activation that the catalog does not hold.
    """

    activation: str
    norm: str
    norm_affine: bool

    def __post_init__(self) -> None:
        activations.entry(self.activation)
        if self.norm not in ("batch", "none"):
            raise BadValue(f"norm of a convolutional network must be one of batch, none, got {self.norm!r}")

    def normalise(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, affine=self.norm_affine) if self.norm == "batch" else nn.Identity()

    def activate(self) -> nn.Module:
        return activations[self.activation]()


class ConvUnit(nn.Module):
    """Convolution, norm, activation; the convolution has a bias exactly where there is no norm."""

    def __init__(
        self,
        into: int,
        out: int,
        size: int,
        style: Style,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        bias = style.norm == "none"
        self.conv = conv(into, out, size, stride, padding=padding, groups=groups, bias=bias)
        self.norm = style.normalise(out)
        self.activation = style.activate()

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, into, height, width) -> (batch, out, height', width')."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


def channels_of(input_shape: tuple[int, ...], model: str, smallest: int = 1) -> int:
    """The channels of an image.

    Raises:
        BadValue: for an input that is no image, or one with a side below `smallest`, naming `model`.
    """
    if len(input_shape) != 3:
        raise BadValue(f"{model} needs images (channels, height, width), got input shape {tuple(input_shape)}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise BadValue(
            f"{model} needs images of at least {smallest} x {smallest} pixels, got {height} x {width}; "
            "take larger images or a network that halves them less often"
        )
    return channels


STEMS = ("cifar", "imagenet")
"""The beginnings of a network that was designed for ImageNet: one for images of CIFAR's size, and its own."""


def shrinks(stem: str) -> bool:
    """Whether the stem halves the image, as that of ImageNet does.

    Raises:
        BadValue: for another stem.
    """
    if stem not in STEMS:
        raise BadValue(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    return stem == "imagenet"


def check_dropout(dropout: float) -> float:
    """Return `dropout` if it lies in [0, 1).

    Raises:
        BadValue: otherwise.
    """
    if not 0.0 <= dropout < 1.0:
        raise BadValue(f"dropout must be in [0, 1), got {dropout:g}")
    return dropout


def scaled(size: int, width: int, first: int) -> int:
    """`size` times width / first, rounded half up, at least 1: a network with every layer as much wider as its first.

    Raises:
        BadValue: for a width below 1.
    """
    check_positive("width", width)
    return max(1, (2 * size * width + first) // (2 * first))


def mean_over_positions(x: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, channels)."""
    return torch.mean(x, (2, 3))
