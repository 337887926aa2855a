"""Matching rules: how many weights of a wide sparse layer are active so that it equals its dense twin.

A rule maps the dense shapes of the sparse network and of its twin, layer by layer, to the number of active weights.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma

import torch

from sparseflow.core import BadValue, Catalog, Shapes

matching_rules: Catalog[Callable[[Shapes, Shapes], dict[str, int]]] = Catalog("matching rule")


@matching_rules.add("active-weights", cite="001 eq. 3.2, A.1; 000 eq. 8")
def active_weights(wide: Shapes, twin: Shapes) -> dict[str, int]:
    """In each layer as many active weights as the dense twin has weights."""
    _check_pair(wide, twin)
    return {name: shape.numel() for name, shape in twin.items()}


@matching_rules.add("active-neurons", cite="000 sec. A.1 (named there, not worked out)")
def active_neurons(wide: Shapes, twin: Shapes) -> dict[str, int]:
    """The fewest weights that are expected to connect as many units of each layer as the twin has.

    A unit counts as connected by a weight layer when at least one of its weights there is active: the layer's output
    units, for the last layer its input units. With c of n * f weights drawn at random, n units of f weights each,
    E[connected] = n (1 - C(nf - f, c) / C(nf, c)).
    """
    _check_pair(wide, twin)
    last = list(wide)[-1]
    counts = {}
    for name, shape in wide.items():
        axis = 1 if name == last else 0
        counts[name] = _fewest_connecting(shape[axis], shape.numel() // shape[axis], twin[name][axis])
    return counts


def _check_pair(wide: Shapes, twin: Shapes) -> None:
    if list(wide) != list(twin):
        raise BadValue(f"the twin must have the same layers; got {', '.join(wide)} against {', '.join(twin)}")
    for name, shape in wide.items():
        if twin[name].numel() > shape.numel():
            raise BadValue(
                f"{name}: the twin {_by(twin[name])} has more weights than the sparse layer {_by(shape)}; "
                "choose a twin width no larger than the model's width"
            )


def _by(shape: torch.Size) -> str:
    return "x".join(str(n) for n in shape)


def _fewest_connecting(units: int, fan: int, wanted: int) -> int:
    """Smallest c with E[connected units] >= wanted - 1/2, that is, which rounds to `wanted`."""
    low, high = 1, units * fan
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _expected(units, fan, middle) >= wanted - 0.5 else (middle + 1, high)
    return low


def _expected(units: int, fan: int, count: int) -> float:
    total = units * fan
    if count > total - fan:
        return float(units)
    missed = lgamma(total - fan + 1) - lgamma(total - fan - count + 1) - lgamma(total + 1) + lgamma(total - count + 1)
    return units * (1.0 - exp(missed))
