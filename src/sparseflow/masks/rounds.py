"""Iterative magnitude pruning, a round at a time (Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al. 2020)."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from torch import Tensor

from sparseflow.core import BadValue, Masks, check_fraction
from sparseflow.masks.apportion import round_half_up
from sparseflow.masks.budget import Budget, Empty
from sparseflow.masks.select import Scores, select


def next_round(
    weights: Scores,
    masks: Masks,
    fraction: float = 0.2,
    *,
    target: Budget,
    layerwise: bool = False,
    last: bool = False,
    empty: Empty = "one",
    seed: int = 0,
) -> dict[str, Tensor]:
    """The masks after one more round: `fraction` of the active weights is removed, smallest magnitudes first.

    The last round removes only what is needed to reach the target, every other one at least one weight; masks that
    have reached the target come back as they are.

    Args:
        weights: trained values by weight name.
        masks: those of the round before, for the same names.
        target: active weights at the end: of all layers together or, `layerwise`, of each.
        layerwise: remove the fraction from each layer instead of from all together.
        last: go to the target, whatever the fraction: rounding may leave a small layer a weight or two above it.

    Raises:
        BadValue: for a fraction outside (0, 1), a target of the other kind, a mask without weights or target.
    """
    _check_removed(fraction)
    if layerwise == isinstance(target, int):
        raise BadValue("a layerwise round needs the target of each layer, a global one the number of all")
    if missing := [name for name in masks if name not in weights]:
        raise BadValue(f"no weights for {', '.join(missing)}, which has a mask")
    now = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    budget: Budget
    if isinstance(target, int):
        budget = _left(sum(now.values()), fraction, target, last)
    else:
        if missing := [name for name in masks if name not in target]:
            raise BadValue(f"no target for {', '.join(missing)}, which has a mask")
        budget = {name: _left(n, fraction, target[name], last) for name, n in now.items()}
    return select({name: weights[name].abs() for name in masks}, budget, seed, within=masks, empty=empty)


def rounds_to(density: float, fraction: float = 0.2, weights: int = 10**9) -> int:
    """How many rounds reach the density, of a network of so many weights.

    Raises:
        BadValue: for a density outside (0, 1] or a fraction outside (0, 1).
    """
    check_fraction("density", density)
    _check_removed(fraction)
    target, left, rounds = round_half_up(density, weights), weights, 0
    while left > target:
        left, rounds = _left(left, fraction, target), rounds + 1
    return rounds


def _left(active: int, fraction: float, target: int, last: bool = False) -> int:
    """Active weights after a round; one less at the least, or a few weights would never become fewer."""
    if last or active <= target:
        return min(active, target)
    kept = floor((1 - Fraction(repr(float(fraction)))) * active + Fraction(1, 2))
    return max(target, min(kept, active - 1))


def _check_removed(fraction: float) -> None:
    if not 0.0 < fraction < 1.0:
        raise BadValue(f"the fraction that a round removes must be in (0, 1), got {fraction:g}")
