"""The MobileNets: a depthwise 3x3 convolution for each channel alone, 1x1 convolutions between channels."""

from __future__ import annotations

from torch import Tensor, nn

from sparseflow.models.catalog import models
from sparseflow.models.dropout import Dropout
from sparseflow.models.layers import (
    ConvUnit,
    Style,
    channels_of,
    check_dropout,
    conv,
    linear,
    mean_over_positions,
    scaled,
    shrinks,
)


@models.add("mobilenet-v1", cite="Howard et al. 2017, arXiv:1704.04861, Table 1; 003 sec. 4.1", example=(1, 8, 8))
class MobileNetV1(nn.Module):
    """MobileNet: a 3x3 convolution, then thirteen pairs of a depthwise 3x3 and a 1x1 convolution.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        width: channels of the first convolution, 32 times the paper's width multiplier; the others in proportion.
        activation: name in `models.activations`.
        norm: "batch" after every convolution, or "none"; the convolutions have biases only without it.
        norm_affine: whether the normalisation has a learned scale and shift.
        stem: "imagenet" halves the image five times as in the paper, "cifar" does not in the first convolution.
        dropout: probability of zeroing an input of the last linear layer while training.

    Raises:
        BadValue: for a width below 1, an input that is no image, another norm or stem, a dropout outside [0, 1).
    """

    PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    """(channels, stride) of each pair."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 32,
        activation: str = "relu",
        norm: str = "batch",
        norm_affine: bool = True,
        stem: str = "cifar",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style(activation, norm, norm_affine)
        channels = scaled(32, width, 32)
        self.first = ConvUnit(channels_of(input_shape, "mobilenet-v1"), channels, 3, style, 2 if shrinks(stem) else 1)
        self.blocks = nn.ModuleList()
        for size, stride in self.PAIRS:
            out = scaled(size, width, 32)
            self.blocks.append(SeparableConv(channels, out, stride, style))
            channels = out
        self.dropout = Dropout(check_dropout(dropout))
        self.output = linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.output(self.dropout(mean_over_positions(h)))
        return out


class SeparableConv(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution, each with its norm and activation."""

    def __init__(self, channels: int, out: int, stride: int, style: Style) -> None:
        super().__init__()
        self.depthwise = ConvUnit(channels, channels, 3, style, stride, groups=channels)
        self.pointwise = ConvUnit(channels, out, 1, style)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


@models.add("mobilenet-v2", cite="Sandler et al. 2018, arXiv:1801.04381, Table 2", example=(1, 8, 8))
class MobileNetV2(nn.Module):
    """MobileNet-v2: residual blocks that widen by a 1x1, filter by a depthwise 3x3 and narrow by a 1x1.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        width: channels of the first convolution, 32 times the paper's width multiplier; the others in proportion,
            without the authors' code's rounding to multiples of 8.
        activation: name in `models.activations`; the paper's is ReLU6.
        norm: "batch" after every convolution, or "none"; the convolutions have biases only without it.
        norm_affine: whether the normalisation has a learned scale and shift.
        stem: "imagenet" halves the image five times as in the paper, "cifar" neither in the first convolution nor in
            the second stage.
        dropout: probability of zeroing an input of the last linear layer while training.

    Raises:
        BadValue: for a width below 1, an input that is no image, another norm or stem, a dropout outside [0, 1).
    """

    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """(expansion, channels, blocks, stride of the first) of each stage."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 32,
        activation: str = "relu6",
        norm: str = "batch",
        norm_affine: bool = True,
        stem: str = "cifar",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style(activation, norm, norm_affine)
        channels = scaled(32, width, 32)
        small = not shrinks(stem)
        self.first = ConvUnit(channels_of(input_shape, "mobilenet-v2"), channels, 3, style, 1 if small else 2)
        self.blocks = nn.ModuleList()
        for stage, (expansion, size, count, first_stride) in enumerate(self.STAGES):
            out = scaled(size, width, 32)
            for k in range(count):
                stride = 1 if k or (small and stage == 1) else first_stride
                self.blocks.append(InvertedResidual(channels, out, expansion, stride, style))
                channels = out
        features = scaled(1280, width, 32)
        self.last = ConvUnit(channels, features, 1, style)
        self.dropout = Dropout(check_dropout(dropout))
        self.output = linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.output(self.dropout(mean_over_positions(self.last(h))))
        return out


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, depthwise 3x3, 1x1 back without an activation.

    The input is added where the shape stays. Without expansion the first 1x1 is left out.
    """

    expand: nn.Module | None

    def __init__(self, channels: int, out: int, expansion: int, stride: int, style: Style) -> None:
        super().__init__()
        inner = expansion * channels
        self.expand = ConvUnit(channels, inner, 1, style) if expansion > 1 else None
        self.depthwise = ConvUnit(inner, inner, 3, style, stride, groups=inner)
        self.project = conv(inner, out, 1, bias=style.norm == "none")
        self.project_norm = style.normalise(out)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else self.expand(x)
        out: Tensor = self.project_norm(self.project(self.depthwise(h)))
        return x + out if self.adds else out
