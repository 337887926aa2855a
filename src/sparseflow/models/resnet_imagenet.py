"""The residual networks for large images (He et al. 2015, Table 1), with their own stem or one for CIFAR's images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from sparseflow.core import check_positive
from sparseflow.models.blocks import Block, Bottleneck
from sparseflow.models.catalog import models
from sparseflow.models.layers import Style, channels_of, check_dropout, conv, linear, mean_over_positions, shrinks


class ImageNetResNet(nn.Module):
    """Four stages of blocks, each stage twice as wide as the one before; mean over positions; a linear layer with bias.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        stem: "cifar" is a 3x3 convolution, "imagenet" a 7x7 one with stride 2 and a 3x3 max-pool with stride 2.
        others: as of `ResNet`.

    Raises:
        BadValue: for a width below 1, an input that is no image, another stem, norm or shortcut, a dropout outside
            [0, 1).
    """

    block: ClassVar[type[Block] | type[Bottleneck]]
    counts: ClassVar[tuple[int, ...]]
    """Blocks of each stage."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
        norm_affine: bool = True,
        skip: bool = True,
        shortcut: str = "conv",
        stem: str = "cifar",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_dropout(dropout)
        style = Style(activation, norm, norm_affine)
        images = channels_of(input_shape, "a ResNet")
        large = shrinks(stem)
        self.first = conv(images, width, 7, 2) if large else conv(images, width, 3)
        self.norm = style.normalise(width)
        self.activation = style.activate()
        self.pool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        self.blocks = nn.ModuleList()
        channels = width
        for stage, count in enumerate(self.counts):
            for k in range(count):
                stride = 2 if stage and not k else 1
                inner = width * 2**stage
                block = self.block(channels, inner, stride, style, skip=skip, shortcut=shortcut, dropout=dropout)
                self.blocks.append(block)
                channels = self.block.expansion * inner
        self.output = linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.pool(self.activation(self.norm(self.first(x))))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.output(mean_over_positions(h))
        return out


@models.add("resnet-18", cite="He et al. 2015, arXiv:1512.03385, Table 1; 003 sec. 3", example=(1, 8, 8))
class ResNet18(ImageNetResNet):
    """ResNet-18: four stages of two blocks of two 3x3 convolutions, with the stem of CIFAR or of ImageNet."""

    block = Block
    counts = (2, 2, 2, 2)


@models.add("resnet-50", cite="He et al. 2015, arXiv:1512.03385, Table 1; 003 sec. 3; 004 sec. 4", example=(1, 8, 8))
class ResNet50(ImageNetResNet):
    """ResNet-50: stages of 3, 4, 6 and 3 bottleneck blocks, with the stem of CIFAR or of ImageNet."""

    block = Bottleneck
    counts = (3, 4, 6, 3)
