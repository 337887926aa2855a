"""The two blocks of He et al. 2015, Fig. 5, that their residual networks are made of.

Every convolution, norm and activation is a child of its own, so that each place can be watched or changed alone.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue
from sparseflow.models.dropout import Dropout
from sparseflow.models.layers import Style, conv

SHORTCUTS = ("pad", "conv")


class Residual(nn.Module):
    """What both blocks share: the way past their convolutions."""

    projection: nn.Module | None

    def _make_shortcut(
        self, channels: int, out: int, stride: int, style: Style, *, skip: bool, shortcut: str | None
    ) -> None:
        """Called last, so that a block's own convolutions come first among its weights.

        Args:
            channels, out: of the block's input and output.
            stride: by which the block shrinks the image.
            skip: whether there is a shortcut at all.
            shortcut: where the shape changes, "pad" takes every stride-th pixel and adds channels of zeros (He et al.
                2015, option A, without parameters), "conv" is a 1x1 convolution with that stride and a norm (option B).

        Raises:
            BadValue: for another shortcut.
        """
        if shortcut not in SHORTCUTS:
            raise BadValue(f"shortcut must be one of {', '.join(SHORTCUTS)}, got {shortcut!r}")
        self.skip, self.stride, self.added = skip, stride, out - channels
        self.projection = None
        if skip and shortcut == "conv" and (stride > 1 or out != channels):
            self.projection = nn.Sequential(conv(channels, out, 1, stride), style.normalise(out))

    def _plus_shortcut(self, h: Tensor, x: Tensor) -> Tensor:
        """The block's sum, of its convolutions' output and its input."""
        if not self.skip:
            return h
        if self.projection is not None:
            projected: Tensor = self.projection(x)
            return h + projected
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return h + (F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x)


class Block(Residual):
    """Convolution, norm, activation, dropout, convolution, norm; plus the shortcut; activation. Both are 3x3."""

    expansion = 1
    """Channels of the output for each of `width`."""

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        style: Style,
        *,
        skip: bool,
        shortcut: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.first, self.second = conv(channels, width, 3, stride), conv(width, width, 3)
        self.first_norm, self.second_norm = style.normalise(width), style.normalise(width)
        self.first_activation, self.second_activation = style.activate(), style.activate()
        self.dropout = Dropout(dropout)
        self._make_shortcut(channels, width, stride, style, skip=skip, shortcut=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.first_activation(self.first_norm(self.first(x))))
        h = self.second_norm(self.second(h))
        out: Tensor = self.second_activation(self._plus_shortcut(h, x))
        return out


class Bottleneck(Residual):
    """A 1x1, a 3x3 and a 1x1 convolution, the last one four times as wide; plus the shortcut; activation.

    The 3x3 one has the stride, as in the authors' later code and torchvision; in the paper it is the first 1x1.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        style: Style,
        *,
        skip: bool,
        shortcut: str,
        dropout: float,
    ) -> None:
        super().__init__()
        out = self.expansion * width
        self.first, self.second, self.third = (
            conv(channels, width, 1),
            conv(width, width, 3, stride),
            conv(width, out, 1),
        )
        self.first_norm, self.second_norm = style.normalise(width), style.normalise(width)
        self.third_norm = style.normalise(out)
        self.first_activation, self.second_activation = style.activate(), style.activate()
        self.third_activation = style.activate()
        self.dropout = Dropout(dropout)
        self._make_shortcut(channels, out, stride, style, skip=skip, shortcut=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first_activation(self.first_norm(self.first(x)))
        h = self.dropout(self.second_activation(self.second_norm(self.second(h))))
        h = self.third_norm(self.third(h))
        out: Tensor = self.third_activation(self._plus_shortcut(h, x))
        return out
