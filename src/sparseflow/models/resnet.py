"""The residual networks for images of CIFAR's size (He et al. 2015, sec. 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, check_positive
from sparseflow.models.activations import activations
from sparseflow.models.catalog import models
from sparseflow.models.dropout import Dropout

SHORTCUTS = ("pad", "conv")


@models.add("resnet", cite="He et al. 2015, arXiv:1512.03385, sec. 4.2")
class ResNet(nn.Module):
    """CIFAR's residual network: three stages of blocks of two 3x3 convolutions, each stage twice as wide.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 6 n + 2 for n blocks a stage: 20, 32, 44, 56 ...
        width: channels of the first stage, 16 in the paper.
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
        if depth < 8 or depth % 6 != 2:
            raise BadValue(f"depth of a ResNet for CIFAR must be 6 n + 2 (8, 14, 20, 32, 44, 56 ...), got {depth}")
        if len(input_shape) != 3:
            raise BadValue(f"a ResNet needs images (channels, height, width), got input shape {tuple(input_shape)}")
        if shortcut not in SHORTCUTS:
            raise BadValue(f"shortcut must be one of {', '.join(SHORTCUTS)}, got {shortcut!r}")
        if not 0.0 <= dropout < 1.0:
            raise BadValue(f"dropout must be in [0, 1), got {dropout:g}")
        self.first = _conv(input_shape[0], width, 3)
        self.norm = _norm(norm, width, norm_affine)
        self.activation = activations[activation]()
        blocks: list[Block] = []
        channels = width
        for stage in range(3):
            for k in range((depth - 2) // 6):
                out = width * 2**stage
                stride = 2 if stage and not k else 1
                norms = [_norm(norm, out, norm_affine) for _ in range(2)]
                projection = None
                if skip and shortcut == "conv" and out != channels:
                    projection = nn.Sequential(_conv(channels, out, 1, stride), _norm(norm, out, norm_affine))
                blocks.append(
                    Block(channels, out, stride, norms, activation, skip=skip, projection=projection, dropout=dropout)
                )
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.output = nn.Linear(channels, classes, bias=False)
        # Its own parameter: torch's Linear would draw it at random.
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
        out: Tensor = self.output(h.mean((2, 3))) + self.bias
        return out


class Block(nn.Module):
    """Convolution, norm, activation, convolution, norm; plus the shortcut; activation."""

    def __init__(
        self,
        channels: int,
        out: int,
        stride: int,
        norms: list[nn.Module],
        activation: str,
        *,
        skip: bool,
        projection: nn.Module | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, out, 3, stride), _conv(out, out, 3)
        self.first_norm, self.second_norm = norms
        self.first_activation, self.second_activation = activations[activation](), activations[activation]()
        self.dropout = Dropout(dropout)
        self.skip, self.stride, self.added = skip, stride, out - channels
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.first_activation(self.first_norm(self.first(x))))
        h = self.second_norm(self.second(h))
        if self.skip:
            h = h + self._shortcut(x)
        out: Tensor = self.second_activation(h)
        return out

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            projected: Tensor = self.projection(x)
            return projected
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x


def _conv(into: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, size, stride=stride, padding=size // 2, bias=False)


def _norm(name: str, channels: int, affine: bool) -> nn.Module:
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    raise BadValue(f"norm of a ResNet must be one of none, batch, got {name!r}")
