"""The two LeNets on which pruning is compared: a perceptron of 300 and 100 units, and LeNet-5."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue
from sparseflow.models.activations import activations
from sparseflow.models.catalog import models
from sparseflow.models.layers import ConvUnit, Style, channels_of, flat_norm, linear, scaled


@models.add("lenet-300-100", cite="LeCun et al. 1998, doi:10.1109/5.726791; 004 app. D", example=(1, 8, 8))
class LeNet300(nn.Module):
    """A perceptron with hidden layers of 300 and 100 units, for inputs of any shape.

    Args:
        input_shape: shape of one example; it is flattened.
        classes: number of outputs.
        width: units of the first hidden layer; the second in proportion.
        widths: units of both, whatever `width` is.
        activation: name in `models.activations`.
        norm: "none", "batch" or "layer", between a hidden layer's linear map and its activation; the hidden
            layers have biases only without it.
        norm_affine: whether the normalisation has a learned scale and shift.

    Raises:
        BadValue: for a width below 1, another number of widths or another norm.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 300,
        widths: tuple[int, ...] | None = None,
        activation: str = "relu",
        norm: str = "none",
        norm_affine: bool = True,
    ) -> None:
        super().__init__()
        sizes = _sizes((300, 100), width, widths)
        bias = norm == "none"
        self.first, self.second = linear(prod(input_shape), sizes[0], bias=bias), linear(*sizes, bias=bias)
        self.first_norm, self.second_norm = (flat_norm(norm, size, norm_affine) for size in sizes)
        self.first_activation, self.second_activation = activations[activation](), activations[activation]()
        self.output = linear(sizes[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.first_activation(self.first_norm(self.first(x.flatten(1))))
        h = self.second_activation(self.second_norm(self.second(h)))
        out: Tensor = self.output(h)
        return out


def _sizes(usual: tuple[int, ...], width: int, widths: tuple[int, ...] | None) -> list[int]:
    """Of the hidden layers: as given, or the usual ones in proportion to the first one's width."""
    if widths is None:
        return [scaled(size, width, usual[0]) for size in usual]
    if len(widths) != len(usual) or min(widths) < 1:
        raise BadValue(f"widths must be {len(usual)} whole numbers of at least 1, such as {usual}, got {tuple(widths)}")
    return list(widths)


FIELD = 16
"""The smallest side that LeNet-5's unpadded layers leave a pixel of: 16, 12, 6, 2, 1."""


@models.add("lenet-5", cite="LeCun et al. 1998, doi:10.1109/5.726791, sec. II.B; 004 sec. 4", example=(1, 8, 8))
class LeNet5(nn.Module):
    """LeNet-5 as 004 trains it: two 5x5 convolutions with max-pools, linear layers of 120 and 84 units.

    The convolutions are not padded. Unlike LeCun et al.'s it has ReLU, max-pools without parameters, every channel
    connected to every other, a linear output, and takes MNIST's images of 28 x 28 as they are. An image with a side
    below 16 is centred in a field of zeros. `padding=2` gives MNIST's images the field of 32 x 32 in which they centre
    theirs, and the network the 61,706 parameters that are usually given for it.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        padding: pixels of zeros on every side of the image, around its field where that is larger.
        width: channels of the first convolution; 16, 120 and 84 in proportion.
        widths: channels of both convolutions and units of both hidden linear layers, whatever `width` is.
        activation: name in `models.activations`.
        norm: "none" or "batch", before every hidden activation; the hidden layers have biases only without it.
        norm_affine: whether the normalisation has a learned scale and shift.

    Raises:
        BadValue: for a width below 1, another number of widths, a negative padding, an input that is no image, another
            norm.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int = 6,
        widths: tuple[int, ...] | None = None,
        padding: int = 0,
        activation: str = "relu",
        norm: str = "none",
        norm_affine: bool = True,
    ) -> None:
        super().__init__()
        style = Style(activation, norm, norm_affine)
        images = channels_of(input_shape, "lenet-5")
        if padding < 0:
            raise BadValue(f"padding must not be negative, got {padding}; 0 adds none")
        height, breadth = input_shape[1:]
        self.padding = (*_border(breadth, padding), *_border(height, padding))
        first, second, third, fourth = _sizes((6, 16, 120, 84), width, widths)
        self.first = ConvUnit(images, first, 5, style, padding=0)
        self.second = ConvUnit(first, second, 5, style, padding=0)
        self.pool = nn.MaxPool2d(2)
        bias = norm == "none"
        positions = _left(height, padding) * _left(breadth, padding)
        self.third, self.fourth = linear(second * positions, third, bias=bias), linear(third, fourth, bias=bias)
        self.third_norm, self.fourth_norm = (flat_norm(norm, size, norm_affine) for size in (third, fourth))
        self.third_activation, self.fourth_activation = style.activate(), style.activate()
        self.output = linear(fourth, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = self.pool(self.first(F.pad(x, self.padding)))
        h = self.pool(self.second(h)).flatten(1)
        h = self.third_activation(self.third_norm(self.third(h)))
        h = self.fourth_activation(self.fourth_norm(self.fourth(h)))
        out: Tensor = self.output(h)
        return out


def _border(side: int, padding: int) -> tuple[int, int]:
    """Zeros before and after a side: to make it `FIELD` long if it is shorter, and the padding."""
    lacking = max(0, FIELD - side)
    return lacking // 2 + padding, lacking - lacking // 2 + padding


def _left(side: int, padding: int) -> int:
    """Of a side behind both convolutions and pools."""
    return ((max(side, FIELD) + 2 * padding - 4) // 2 - 4) // 2
