"""Random masks with exact counts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparseflow.core import BadValue, Shapes, stream
from sparseflow.masks.select import random_subset


def random_masks(shapes: Shapes, counts: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """For every named layer a uniformly random mask with exactly `counts[name]` active weights (001 eq. A.2).

    A layer's mask depends on (seed, its name) alone.

    Args:
        shapes: weight name -> dense shape.
        counts: weight name -> active weights; layers it does not name are left without a mask.

    Raises:
        BadValue: for a count without a shape, or outside [0, number of weights]; names the layer.
    """
    masks: dict[str, Tensor] = {}
    for name, count in counts.items():
        if name not in shapes:
            raise BadValue(f"no weight {name!r} to mask (known: {', '.join(shapes)})")
        try:
            masks[name] = random_subset(shapes[name], count, stream(seed, "mask", name))
        except BadValue as error:
            raise BadValue(f"{name}: {error}") from None
    return masks
