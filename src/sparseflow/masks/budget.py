"""Budgets: how many weights are active, in each layer or in all.

A budget maps dense shapes and a density to a `Budget`: a number for each layer, or one number for all of them, which
the scores then share by rank.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, get_args

from sparseflow.core import BadValue, Catalog, Shapes, UnknownName, check_fraction
from sparseflow.masks.apportion import round_half_up, share

Budget = dict[str, int] | int
"""Weight name -> active weights; or the number of active weights of all layers together."""

Empty = Literal["one", "error", "allow"]
"""What becomes of a layer that would be left without a weight: it keeps one (and a common total stays what it is), it
is an error, or it is empty."""

Density = float | Sequence[float] | Mapping[str, float]
"""Of all weights; for the budget "vector", of each layer, in order or by name."""

budgets: Catalog[Callable[..., Budget]] = Catalog("budget")
"""name -> (shapes, density, dense, least, **options): `dense` names layers that stay dense and count as active; no
layer gets fewer than `least` weights, 1 or 0. Fact `layerwise`: whether each layer has its own number."""


@budgets.add("uniform", cite="standard", layerwise=True)
def uniform(shapes: Shapes, density: float, dense: Collection[str] = (), least: int = 1) -> dict[str, int]:
    """The same density in every layer: max(1, round(density * n)) active weights of n.

    Raises:
        BadValue: unless density is in (0, 1].
    """
    check_one(density)
    return {n: s.numel() if n in dense else round_half_up(density, s.numel(), least) for n, s in shapes.items()}


@budgets.add("er", cite="Mocanu et al. 2018, arXiv:1707.04780", layerwise=True)
def er(shapes: Shapes, density: float, dense: Collection[str] = (), least: int = 1) -> dict[str, int]:
    """Erdős–Rényi: layer density proportional to (in + out) / (in * out), channels only."""
    proportions = {name: (shape[0] + shape[1]) / (shape[0] * shape[1]) for name, shape in shapes.items()}
    return share(shapes, total(shapes, density), proportions, dense, least)


@budgets.add("erk", cite="Evci et al. 2020, arXiv:1911.11134", layerwise=True)
def erk(shapes: Shapes, density: float, dense: Collection[str] = (), least: int = 1) -> dict[str, int]:
    """Erdős–Rényi kernel: layer density proportional to sum(dims) / prod(dims), kernel dimensions too."""
    proportions = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    return share(shapes, total(shapes, density), proportions, dense, least)


@budgets.add("smart-ratios", cite="Su et al. 2020, arXiv:2009.11094", layerwise=True)
def smart_ratios(
    shapes: Shapes, density: float, dense: Collection[str] = (), least: int = 1, *, last: float = 0.3
) -> dict[str, int]:
    """Layer l of L gets a density proportional to (L - l + 1)^2 + (L - l + 1); the last layer a fixed one.

    Args:
        last: density of the last layer, 0.3 in the paper.

    Raises:
        BadValue: if the last layer alone would take more than the whole budget leaves.
    """
    check_fraction("last", last)
    names = list(shapes)
    target, output = total(shapes, density), names[-1]
    own = shapes[output].numel() if output in dense else round_half_up(last, shapes[output].numel(), least)
    depth = len(names)
    proportions = {name: float((depth - k) ** 2 + (depth - k)) for k, name in enumerate(names)}
    rest = {name: shapes[name] for name in names[:-1]}
    own = max(own, target - sum(shape.numel() for shape in rest.values()))  # what the other layers cannot hold
    if own + least * len(rest) > target:
        raise BadValue(
            f"{output}: smart ratios keep {own:,} of its weights (last = {last:g}), but density {density:g} leaves "
            f"{target:,} for {depth} layers; give a larger density or a smaller last"
        )
    return {**share(rest, target - own, proportions, set(dense) - {output}, least), output: own}


@budgets.add("vector", cite="001 sec. 4.2", layerwise=True)
def vector(shapes: Shapes, density: Density, dense: Collection[str] = (), least: int = 1) -> dict[str, int]:
    """A density for each layer, given in the layers' order or by name: max(1, round(density * n)) each.

    Raises:
        BadValue: for another number of densities than layers, or one outside (0, 1].
        UnknownName: for a density of a layer that is not there.
    """
    if isinstance(density, float | int):
        raise BadValue(f"budget 'vector' needs one density for each of {len(shapes)} layers, got the number {density}")
    if not isinstance(density, Mapping):
        if len(density) != len(shapes):
            raise BadValue(f"got {len(density)} densities for {len(shapes)} layers ({', '.join(shapes)})")
        density = dict(zip(shapes, density, strict=True))
    for name in density:
        if name not in shapes:
            raise UnknownName("weight", name, shapes)
    if missing := [name for name in shapes if name not in density and name not in dense]:
        raise BadValue(f"no density for {', '.join(missing)}")
    own = {name: 1.0 if name in dense else check_fraction(f"density of {name}", density[name]) for name in shapes}
    return {name: round_half_up(own[name], shape.numel(), least) for name, shape in shapes.items()}


@budgets.add("global", cite="standard", layerwise=False)
def anywhere(shapes: Shapes, density: float, dense: Collection[str] = (), least: int = 1) -> int:
    """One number for all layers: the best-scored weights stay, wherever they are."""
    return total(shapes, density)


def count(
    budget: str,
    shapes: Shapes,
    density: Density,
    dense: Collection[str] = (),
    *,
    empty: Empty = "one",
    **options: Any,
) -> Budget:
    """The numbers of a budget of the catalog.

    Args:
        empty: what a layer gets whose share rounds to no weight at all: one, none ("allow"), or it is an error.
        options: the budget's own.

    Raises:
        UnknownName: for a budget that is not in the catalog.
        BadValue: for a density outside (0, 1], one that leaves a layer empty where that is an error, several where
            the budget takes one.
    """
    check_empty(empty)
    found = budgets[budget](shapes, density, dense, 1 if empty == "one" else 0, **options)
    if empty == "error" and isinstance(found, Mapping) and (hollow := [n for n, k in found.items() if not k]):
        raise BadValue(
            f"budget {budget!r} at density {density} leaves no weight in {', '.join(hollow)}; "
            "give a larger density, or let such a layer keep one (empty = 'one')"
        )
    return found


def without(budget: Budget, shapes: Shapes, dense: Collection[str]) -> Budget:
    """The part of a budget that is left for the layers that do not stay dense.

    Raises:
        BadValue: if the dense layers have more weights than a common total.
    """
    if isinstance(budget, int):
        left = budget - sum(shapes[name].numel() for name in dense)
        if left < 0:
            raise BadValue(f"the dense layers {', '.join(sorted(dense))} have more weights than the {budget:,} to keep")
        return left
    return {name: n for name, n in budget.items() if name not in dense}


def total(shapes: Shapes, density: float) -> int:
    """max(1, round(density * n)) of all n weights together.

    Raises:
        BadValue: unless density is in (0, 1].
    """
    check_one(density)
    return round_half_up(density, sum(shape.numel() for shape in shapes.values()))


def check_one(density: Density) -> None:
    """Raise BadValue unless the density is one number in (0, 1]."""
    if not isinstance(density, float | int):
        raise BadValue(f"this budget takes one density, got {density!r}; 'vector' takes one for each layer")
    check_fraction("density", density)


def check_empty(empty: str) -> None:
    """Raise BadValue for a rule about empty layers that there is not."""
    if empty not in get_args(Empty):
        raise BadValue(f"empty must be one, error or allow, got {empty!r}")
