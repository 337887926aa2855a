"""The multilayer perceptron of the capacity-matched comparison (001 sec. 3.3.2, 000 sec. 2.3)."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from sparseflow.core import BadValue, check_positive
from sparseflow.models.activations import activations
from sparseflow.models.catalog import models
from sparseflow.models.dropout import Dropout
from sparseflow.models.layers import check_dropout, flat_norm


def maximum_width(input_size: int) -> int:
    """N_MW = n + 4 for n inputs (001 sec. 3.2.1, after Lu et al. 2017)."""
    return input_size + 4


@models.add("mlp", cite="001 sec. 3.3; 000 sec. 3", example=(1, 8, 8), stacked=True)
class MLP(nn.Module):
    """Layers of one width without biases: linear, normalisation, activation, dropout.

    Args:
        input_shape: shape of one example; it is flattened.
        classes: number of outputs.
        depth: number of hidden layers.
        width: units of each hidden layer; by default `maximum_width` of the input.
        activation: name in `models.activations`.
        norm: "none", "batch" or "layer", between a hidden layer's linear map and its activation.
        norm_affine: whether the normalisation has a learned scale and shift (their number grows with the width).
        skip: add the output of hidden layer k to the pre-activation of hidden layer k + 2, k = 1, 3, ... The first
            layer's input has another width and gets no skip, so the smallest depth with a skip is 3.
        dropout: probability of zeroing a hidden activation while training.

    Raises:
        BadValue: for a depth or width below 1, a skip without two layers to span, a dropout outside [0, 1).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        depth: int = 4,
        width: int | None = None,
        activation: str = "relu",
        norm: str = "none",
        norm_affine: bool = True,
        skip: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inputs = prod(input_shape)
        width = maximum_width(inputs) if width is None else width
        check_positive("depth", depth)
        check_positive("width", width)
        if skip and depth < 3:
            raise BadValue(f"skip connections span two hidden layers and need a depth of at least 3, got {depth}")
        self.skip = skip
        sizes = [inputs] + [width] * depth
        self.linears = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(flat_norm(norm, width, norm_affine) for _ in range(depth))
        self.activations = nn.ModuleList(activations[activation]() for _ in range(depth))
        self.dropout = Dropout(check_dropout(dropout))
        self.output = nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, *input_shape) -> logits (batch, classes)."""
        h = x.flatten(1)
        carried = None
        for k, (linear, norm, activation) in enumerate(
            zip(self.linears, self.norms, self.activations, strict=True), start=1
        ):
            z = norm(linear(h))
            odd = k % 2 == 1
            if self.skip and odd and carried is not None:
                z = z + carried
            h = self.dropout(activation(z))
            if odd:
                carried = h
        out: Tensor = self.output(h)
        return out
