"""The choice of execution per layer, from a shipped table: a cache on one machine must not change a study's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from sparseflow.core import BadValue, Shapes
from sparseflow.sparse import native

Execution = Literal["auto", "masked", "compact"]

Table = tuple[tuple[int, float], ...]

LINEAR: Table = ((200_000, 0.65), (50_000, 0.5))
CONVOLUTION: Table = ((2_000, 0.5),)
"""(weights in the layer, highest density at which the compact layer is taken), largest first.

Where `crossover.measure` found compact ahead for batches of 128 on one AVX-512 thread, a step of its densities held
back: 512 x 512 to 3076 x 3076 up to 0.8, 260 x 260 up to 0.65, 3 x 3 convolutions of 16 to 160 channels up to 0.65 or
0.8, 1 x 1 of 64 up to 0.65; at 128 x 128 and below the dense layer wins at every density. Masked layers pay their
masking besides."""

WITHOUT_KERNELS: Table = ((5_000_000, 0.20), (300_000, 0.30), (50_000, 0.15))
"""The same for linear layers by torch's CSR products; convolutions stay masked."""


def choose(shapes: Shapes, counts: Mapping[str, int], execution: Execution) -> dict[str, str]:
    """Weight name -> "masked" or "compact" for each layer that has a count.

    Args:
        shapes: dense shapes.
        counts: active weights per masked layer.
        execution: "masked" or "compact" for all, or "auto": the table's choice, layer by layer.

    Raises:
        BadValue: for another execution.
    """
    if execution in ("masked", "compact"):
        return dict.fromkeys(counts, execution)
    if execution != "auto":
        raise BadValue(f"execution must be one of auto, masked, compact, got {execution!r}")
    return {name: _by_table(shapes[name], counts[name]) for name in counts}


def _by_table(shape: torch.Size, active: int) -> str:
    total = shape.numel()
    if native.available():
        table: Table = LINEAR if len(shape) == 2 else CONVOLUTION
    else:
        table = WITHOUT_KERNELS if len(shape) == 2 else ()
    for size, density in table:
        if total >= size:
            return "compact" if active <= density * total else "masked"
    return "masked"
