"""Arithmetic counted from active weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from sparseflow.core import Masks, StandsForWeight, active_counts, join, mode

_CONVOLUTION = nn.modules.conv._ConvNd
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_MULTIPLIES: Any = (nn.Linear, _CONVOLUTION, StandsForWeight)


@torch.no_grad()
def forward_flops(model: nn.Module, masks: Masks, example: Tensor) -> int:
    """Floating-point operations of one forward pass on one example: 2 per active weight and use.

    A linear layer uses a weight once per position of its input, a convolution once per output position, a transposed
    one per input position. Elementwise work (normalisation, activations) is not counted. A training step is taken as
    three forward passes: the product itself, the gradient of its input and of its weights.

    Args:
        example: one model input with its batch dimension, shape (1, ...).
    """
    counts = active_counts(model, masks)
    uses = dict.fromkeys(counts, 0)

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        convolves = isinstance(layer, _CONVOLUTION) or (
            isinstance(layer, StandsForWeight) and len(layer.weight_shape) > 2
        )
        channel = 1 if convolves else -1

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # A transposed convolution spreads each input position over the kernel.
            positions = inputs[0] if isinstance(layer, _TRANSPOSED) else output
            uses[name] += positions.numel() // positions.shape[channel]

        return layer.register_forward_hook(hook)

    layers = [(_weight_name(p, m), m) for p, m in model.named_modules() if isinstance(m, _MULTIPLIES)]
    handles = [watch(name, layer) for name, layer in layers]
    try:
        with mode(model, training=False):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return sum(2 * counts[name] * times for name, times in uses.items())


def _weight_name(prefix: str, layer: nn.Module) -> str:
    original = "parametrizations.weight.original"
    return join(prefix, original if parametrize.is_parametrized(layer, "weight") else "weight")
