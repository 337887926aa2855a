"""The choice of execution per layer, from a shipped table: a cache on one machine must not change a study's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sparseflow.core import BadValue, Shapes

Execution = Literal["auto", "masked", "compact"]

CROSSOVER = ((5_000_000, 0.20), (300_000, 0.30), (50_000, 0.15))
"""(weights in the layer, highest density at which torch's CSR products beat the masked dense layer), largest first.

Measured for whole steps of the comparison's net at widths 3076, 788 and 260 (batch 128, fused SGD, hooks included, one
AVX-512 thread); at width 68 the dense layer wins at every density. `sparseflow bench step` measures it anew."""


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
    return {name: _by_table(shapes[name].numel(), counts[name]) for name in counts}


def _by_table(total: int, active: int) -> str:
    for size, density in CROSSOVER:
        if total >= size:
            return "compact" if active <= density * total else "masked"
    return "masked"
