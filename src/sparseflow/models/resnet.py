"""The residual networks for images of CIFAR's size (He et al. 2015, sec. 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, check_positive
from sparseflow.models.blocks import Block
from sparseflow.models.catalog import models
from sparseflow.models.layers import Style, channels_of, check_dropout, conv, mean_over_positions


@models.add("resnet", cite="He et al. 2015, arXiv:1512.03385, sec. 4.2", example=(1, 8, 8))
class ResNet(nn.Module):
    """CIFAR's residual network: three stages of blocks of two 3x3 convolutions, each stage twice as wide.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 6 n + 2 for n blocks a stage: 20, 32, 44, 56 ...
        width: channels of the first stage, 16 in the paper; 32 in the ResNet-32 of 001 Table B.2.
        activation: name in `models.activations`.
        norm: "batch" after every convolution, or "none".
        norm_affine: whether the normalisation has a learned scale and shift.
        skip: whether blocks have shortcuts; without them it is the paper's plain network.
        shortcut: where the shape changes, "pad" takes every second pixel and adds channels of zeros (the paper's
            option A, without parameters), "conv" is a 1x1 convolution with stride 2 and a norm (option B).
        dropout: probability of zeroing an activation between the two convolutions of a block (Zagoruyko & Komodakis
            2016, arXiv:1605.07146).

    Raises:
        BadValue: for another depth, a width below 1, an input that is no image, another norm or shortcut, a dropout
            outside [0, 1).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        depth: int = 32,
        width: int = 16,
        activation: str = "relu",
        norm: str = "batch",
        norm_affine: bool = True,
        skip: bool = True,
        shortcut: str = "pad",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_dropout(dropout)
        if depth < 8 or depth % 6 != 2:
            raise BadValue(f"depth of a ResNet for CIFAR must be 6 n + 2 (8, 14, 20, 32, 44, 56 ...), got {depth}")
        style = Style(activation, norm, norm_affine)
        self.first = conv(channels_of(input_shape, "a ResNet"), width, 3)
        self.norm = style.normalise(width)
        self.activation = style.activate()
        blocks: list[Block] = []
        channels = width
        for stage in range(3):
            for k in range((depth - 2) // 6):
                out = width * 2**stage
                stride = 2 if stage and not k else 1
                blocks.append(Block(channels, out, stride, style, skip=skip, shortcut=shortcut, dropout=dropout))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.output = nn.Linear(channels, classes, bias=False)
        self.bias = nn.Parameter(torch.empty(classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The output's bias, the one parameter of the network itself, starts at 0."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.activation(self.norm(self.first(x)))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.output(mean_over_positions(h)) + self.bias
        return out
