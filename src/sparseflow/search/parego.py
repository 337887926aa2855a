"""One score from accuracy and size, in shares that differ from suggestion to suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

import torch

from sparseflow.core import stream

RHO = 0.05
SHARES = 10
"""The shares are 0, 1/10 ... 1."""


def share_of(seed: int, number: int) -> float:
    """How much of suggestion `number` is about accuracy; the rest is about size."""
    return int(torch.randint(SHARES + 1, (), generator=stream(seed, "pareto", number))) / SHARES


def mixed(costs: Sequence[tuple[float, float]], share: float) -> list[float]:
    """Scores, larger is better, of (first, second) costs; NaN for one that is not finite.

    Each cost is scaled to [0, 1] over those given, then the augmented Tchebycheff function is taken: minus the largest
    of the weighted costs, minus `RHO` times their sum (ParEGO: Knowles 2006, IEEE TEVC 10:50-66, eq. 2). Every point of
    the front, in a hollow of it too, is the best one for some shares, so that shares that vary lead along it.
    """
    known = [cost for cost in costs if all(map(isfinite, cost))]
    if not known:
        return [nan] * len(costs)
    ranges = [(min(of), max(of)) for of in zip(*known, strict=True)]

    def score(cost: tuple[float, float]) -> float:
        if not all(map(isfinite, cost)):
            return nan
        scaled = [(c - low) / ((high - low) or 1.0) for c, (low, high) in zip(cost, ranges, strict=True)]
        parts: list[float] = [weight * c for weight, c in zip((share, 1.0 - share), scaled, strict=True)]
        return -max(parts) - RHO * sum(parts)

    return [score(cost) for cost in costs]
