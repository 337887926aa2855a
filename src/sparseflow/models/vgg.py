"""VGG-16 as sparse-training papers use it: its convolutions, then one linear layer (Simonyan & Zisserman 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from sparseflow.models.catalog import models
from sparseflow.models.dropout import Dropout
from sparseflow.models.layers import (
    ConvUnit,
    Style,
    channels_of,
    check_dropout,
    linear,
    mean_over_positions,
    scaled,
)

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of each stage (their configuration D)."""


@models.add("vgg16", cite="Simonyan & Zisserman 2014, arXiv:1409.1556; 003 sec. 4.1; 004 sec. 4.1", example=(1, 16, 16))
class VGG16(nn.Module):
    """VGG-16's thirteen 3x3 convolutions in five stages; mean over positions; one linear layer with bias.

    The head is that of the lottery-ticket and RigL code, on which 003 and 004 build, not the three wide linear layers
    of Simonyan & Zisserman: a 2x2 max-pool between stages, the mean over what is left after the fifth.

    Args:
        input_shape: (channels, height, width), at least 16 x 16: the image is halved four times.
        classes: number of outputs.
        width: channels of the first stage; the others in proportion.
        activation: name in `models.activations`.
        norm: "batch" after every convolution, or "none"; the convolutions have biases only without it.
        norm_affine: whether the normalisation has a learned scale and shift.
        dropout: probability of zeroing an input of the linear layer while training.

    Raises:
        BadValue: for a width below 1, an input that is no image or a smaller one, another norm, a dropout outside
            [0, 1).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
        norm_affine: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = Style(activation, norm, norm_affine)
        channels = channels_of(input_shape, "vgg16", smallest=2 ** (len(STAGES) - 1))
        self.stages = nn.ModuleList()
        for sizes in STAGES:
            stage = nn.Sequential()
            for size in sizes:
                out = scaled(size, width, STAGES[0][0])
                stage.append(ConvUnit(channels, out, 3, style))
                channels = out
            self.stages.append(stage)
        self.pool = nn.MaxPool2d(2)
        self.dropout = Dropout(check_dropout(dropout))
        self.output = linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        for k, stage in enumerate(self.stages):
            x = stage(self.pool(x) if k else x)
        out: Tensor = self.output(self.dropout(mean_over_positions(x)))
        return out
