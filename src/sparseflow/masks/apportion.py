"""Exact integers: rounding half up, and sharing a number of active weights among layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from math import floor

from sparseflow.core import BadValue, Shapes


def round_half_up(density: float, total: int, least: int = 1) -> int:
    """density * total rounded to the nearest integer, halves up, and at least `least`.

    Computed from the shortest decimal that denotes `density`, so that 0.15 of 50 is 7.5 and gives 8, although the
    binary double nearest to 0.15 is a little smaller.
    """
    exact = Fraction(repr(float(density))) * total
    return max(least, floor(exact + Fraction(1, 2)))


def share(
    shapes: Shapes, target: int, proportions: Mapping[str, float], dense: Collection[str] = (), least: int = 1
) -> dict[str, int]:
    """`target` active weights shared so that layer densities are proportional to `proportions`.

    A layer whose density would exceed 1 becomes dense, and the rest is solved again until none does: the densities
    are min(1, e * proportion) for the one e that meets the target. Fractions go to the largest remainders, so that
    the counts sum to `target` exactly.

    Args:
        proportions: weight name -> positive number, for every weight of `shapes`.
        dense: weights that are dense whatever their proportion.
        least: 1: a layer that would get none takes one from the fullest; 0: it gets none.

    Raises:
        BadValue: if the target leaves less than `least` weights for each layer, or more than there are.
    """
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    full = set(dense)
    fixed = sum(sizes[name] for name in full)
    free = [name for name in shapes if name not in full]
    fewest = fixed + least * len(free)
    if not fewest <= target <= sum(sizes.values()):
        raise BadValue(
            f"{target:,} active weights cannot be shared among {len(free)} layers"
            + (f" beside {fixed:,} in dense ones" if full else "")
            + f": at least {fewest:,} and at most {sum(sizes.values()):,} would do"
        )
    if not free:
        return sizes
    scale = 0.0
    while free:
        scale = (target - sum(sizes[name] for name in full)) / sum(proportions[name] * sizes[name] for name in free)
        exceeding = {name for name in free if scale * proportions[name] > 1.0}
        if not exceeding:
            break
        full |= exceeding
        free = [name for name in free if name not in exceeding]
    quotas = {name: float(n) if name in full else scale * proportions[name] * n for name, n in sizes.items()}
    return _to_integers(quotas, target, least, [name for name in shapes if name not in dense])


def _to_integers(quotas: Mapping[str, float], target: int, least: int, may_give: Collection[str]) -> dict[str, int]:
    """Integers of at least `least` that sum to `target`, each within one of its quota where `least` allows it."""
    counts = {name: floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: target - sum(counts.values())]:
        counts[name] += 1
    for name in [name for name, count in counts.items() if count < least]:
        counts[max(may_give, key=counts.__getitem__)] -= 1
        counts[name] += 1
    return counts
