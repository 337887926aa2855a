"""The wide residual networks (Zagoruyko & Komodakis 2016), whose blocks normalise before they convolve."""

from __future__ import annotations

from torch import Tensor, nn

from sparseflow.core import BadValue, check_positive
from sparseflow.models.catalog import models
from sparseflow.models.dropout import Dropout
from sparseflow.models.layers import Style, channels_of, check_dropout, conv, linear, mean_over_positions

STEM = 16
"""Channels of the first convolution, whatever the widening (the paper's Table 1)."""


@models.add("wide-resnet", cite="Zagoruyko & Komodakis 2016, arXiv:1605.07146; 000, 001 sec. 3.4.2", example=(1, 8, 8))
class WideResNet(nn.Module):
    """WRN-28-10 and its kin: three stages of wide pre-activation blocks of two 3x3 convolutions.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 6 n + 4 for n blocks a stage: 10, 16, 22, 28, 40 ...
        width: channels of the first stage, 16 times the paper's widening factor: 160 for WRN-28-10.
        activation: name in `models.activations`.
        norm: "batch" before every convolution but the first, or "none".
        norm_affine: whether the normalisation has a learned scale and shift.
        skip: whether blocks have shortcuts.
        dropout: probability of zeroing an activation between the two convolutions of a block.

    Raises:
        BadValue: for another depth, a width below 1, an input that is no image, another norm, a dropout outside [0, 1).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        depth: int = 28,
        width: int = 160,
        activation: str = "relu",
        norm: str = "batch",
        norm_affine: bool = True,
        skip: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_dropout(dropout)
        if depth < 10 or depth % 6 != 4:
            raise BadValue(f"depth of a wide ResNet must be 6 n + 4 (10, 16, 22, 28, 40 ...), got {depth}")
        style = Style(activation, norm, norm_affine)
        self.first = conv(channels_of(input_shape, "a wide ResNet"), STEM, 3)
        self.blocks = nn.ModuleList()
        channels = STEM
        for stage in range(3):
            for k in range((depth - 4) // 6):
                out = width * 2**stage
                stride = 2 if stage and not k else 1
                self.blocks.append(PreActivationBlock(channels, out, stride, style, skip=skip, dropout=dropout))
                channels = out
        self.norm = style.normalise(channels)
        self.activation = style.activate()
        self.output = linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.output(mean_over_positions(self.activation(self.norm(h))))
        return out


class PreActivationBlock(nn.Module):
    """Norm, activation, convolution, norm, activation, dropout, convolution; plus the shortcut.

    Where the shape changes the shortcut is a bare 1x1 convolution of the normalised and activated input, as in the
    authors' code; elsewhere it is the block's input itself.
    """

    projection: nn.Module | None

    def __init__(self, channels: int, out: int, stride: int, style: Style, *, skip: bool, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = style.normalise(channels), style.normalise(out)
        self.first_activation, self.second_activation = style.activate(), style.activate()
        self.first, self.second = conv(channels, out, 3, stride), conv(out, out, 3)
        self.dropout = Dropout(dropout)
        self.skip = skip
        changes = stride > 1 or out != channels
        self.projection = conv(channels, out, 1, stride) if skip and changes else None

    def forward(self, x: Tensor) -> Tensor:
        entering = self.first_activation(self.first_norm(x))
        h = self.dropout(self.second_activation(self.second_norm(self.first(entering))))
        out: Tensor = self.second(h)
        if not self.skip:
            return out
        return out + (x if self.projection is None else self.projection(entering))
