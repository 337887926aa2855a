"""Budgets: integer numbers of active weights per layer."""

from __future__ import annotations

from fractions import Fraction

from sparseflow.core import Shapes, check_fraction


def round_half_up(density: float, total: int) -> int:
    """density * total rounded to the nearest integer, halves up, and at least 1.

    Computed from the shortest decimal that denotes `density`, so that 0.15 of 50 is 7.5 and gives 8, although the
    binary double nearest to 0.15 is a little smaller.
    """
    exact = Fraction(repr(float(density))) * total
    return max(1, int(exact + Fraction(1, 2)))


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """The same density in every layer: max(1, round(density * n)) active weights of n.

    Raises:
        BadValue: unless density is in (0, 1].
    """
    check_fraction("density", density)
    return {name: round_half_up(density, shape.numel()) for name, shape in shapes.items()}
