"""The layers that are timed: their masks, values, inputs and output gradients, the same for every implementation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, check_fraction, check_positive, stream
from sparseflow.masks import random_masks, uniform

Layout = str
"""Where the batch stands in memory: "batch-major" (contiguous), "channels-last" (images only) or "feature-major":
feature-major (features, batch), for images (channels, height, width, batch). The tensor's shape is the same in all."""


@dataclass(frozen=True)
class LayerCase:
    """One layer without bias, one batch.

    Attributes:
        out, into: units, or channels of a 3x3 convolution with padding 1.
        side: height and width of the images; 0 for a linear layer.
        density: part of the weights that is active.
    """

    into: int
    out: int
    side: int
    batch: int
    density: float

    def __post_init__(self) -> None:
        for what in ("into", "out", "batch"):
            check_positive(what, getattr(self, what))
        check_fraction("density", self.density)

    @property
    def kind(self) -> str:
        return "conv" if self.side else "linear"

    @property
    def title(self) -> str:
        where = f"conv 3x3 {self.into}->{self.out} at {self.side}x{self.side}" if self.side else self._linear()
        return f"{where}, batch {self.batch}, density {self.density:g}"

    def _linear(self) -> str:
        return f"linear {self.into}->{self.out}"

    @property
    def weight_shape(self) -> torch.Size:
        return torch.Size((self.out, self.into, 3, 3) if self.side else (self.out, self.into))

    def mask(self) -> Tensor:
        """Bool, with round(density * weights) entries True, at least one."""
        shapes = {"weight": self.weight_shape}
        return random_masks(shapes, uniform(shapes, self.density), seed=0)["weight"]

    def layer(self, mask: Tensor) -> nn.Linear | nn.Conv2d:
        """The dense layer, with exact zeros where the mask is off; values without zeros where it is on."""
        layer = _made(self)
        fan = max(1.0, float(mask.sum()) / self.out)
        draw = torch.randn(self.weight_shape, generator=stream(0, "bench", "weight")) / sqrt(fan)
        with torch.no_grad():
            # A rival that reads the pattern from the values must find all of it.
            layer.weight.copy_(torch.where(draw == 0, 1e-3, draw).masked_fill_(~mask, 0.0))
        return layer

    def input(self, layout: Layout) -> Tensor:
        """A leaf of shape (batch, into[, side, side]) that requires its gradient."""
        return laid_out(self._draw(self.into, "input"), layout).requires_grad_()

    def output_gradient(self, layout: Layout) -> Tensor:
        return laid_out(self._draw(self.out, "gradient"), layout)

    def _draw(self, features: int, name: str) -> Tensor:
        shape = (self.batch, features, self.side, self.side) if self.side else (self.batch, features)
        return torch.randn(shape, generator=stream(0, "bench", name))

    def twin(self) -> LayerCase:
        """The dense layer with about as many weights: both dimensions scaled by the root of the density."""
        scale = sqrt(self.density)
        into, out = (max(1, int(scale * n + 0.5)) for n in (self.into, self.out))
        return replace(self, into=into, out=out, density=1.0)


def _made(case: LayerCase) -> nn.Linear | nn.Conv2d:
    made: nn.Linear | nn.Conv2d
    if case.side:
        made = nn.utils.skip_init(nn.Conv2d, case.into, case.out, 3, padding=1, bias=False)
    else:
        made = nn.utils.skip_init(nn.Linear, case.into, case.out, bias=False)
    return made


def laid_out(x: Tensor, layout: Layout) -> Tensor:
    """The same values and shape in another order of memory."""
    if layout == "batch-major":
        return x.contiguous()
    if layout == "channels-last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "feature-major":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    raise BadValue(f"layout must be one of batch-major, channels-last, feature-major, got {layout!r}")


def read_linear(text: str) -> tuple[int, int, int]:
    """ "784x788" -> (784, 788, 0): inputs, outputs, no image.

    Raises:
        BadValue: for anything else.
    """
    return _read(text, r"(\d+)x(\d+)", "a linear layer is written INxOUT, such as 3076x3076", lambda a, b: (a, b, 0))


def read_conv(text: str) -> tuple[int, int, int]:
    """ "16@32" -> (16, 16, 32): a 3x3 convolution of 16 channels to 16 at 32 x 32.

    Raises:
        BadValue: for anything else.
    """
    form = "a convolution is written CHANNELS@SIDE, such as 16@32"
    return _read(text, r"(\d+)@(\d+)", form, lambda a, b: (a, a, b))


def _read(text: str, pattern: str, form: str, make: Callable[[int, int], tuple[int, int, int]]) -> tuple[int, int, int]:
    found = re.fullmatch(pattern, text.strip())
    if not found or not all(int(n) for n in found.groups()):
        raise BadValue(f"{form}, got {text!r}")
    return make(int(found[1]), int(found[2]))
