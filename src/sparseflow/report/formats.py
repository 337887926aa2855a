"""How numbers stand in tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from sparseflow.stats import summary


def p_text(value: float) -> str:
    """A p-value."""
    if isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def p_colour(p: float) -> str:
    """The papers' scale: green at 0, yellow at 0.5, red at 1 (001 Table 3.3)."""
    if isnan(p):
        return ""
    green, yellow, red = (99, 190, 123), (255, 235, 132), (248, 105, 107)
    low, high, t = (green, yellow, p / 0.5) if p <= 0.5 else (yellow, red, (p - 0.5) / 0.5)
    return "#" + "".join(f"{round(a + (b - a) * t):02x}" for a, b in zip(low, high, strict=True))


def error_text(error: float) -> str:
    """A standard error or a residual, to one digit: 20, 0.3, 2e-11."""
    return f"{float(f'{error:.1g}'):g}"


def spread_text(values: Sequence[float], digits: int, diverged: int = 0) -> str:
    """`mean ± standard deviation (n)`, with a dagger and the number of diverged runs among them."""
    if not values:
        return "–"
    s = summary(values)
    spread = f" ± {s.std:.{digits}f}" if s.n > 1 else ""
    return f"{s.mean:.{digits}f}{spread} ({s.n})" + (f" †{diverged}" if diverged else "")
