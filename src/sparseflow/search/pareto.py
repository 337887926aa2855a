"""Accuracy and size together: what no other vector beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparseflow.core import BadValue


def front(scores: Sequence[float], active: Sequence[int]) -> list[int]:
    """Places of the Pareto front, ordered from few active weights to many, then by place.

    A place is on it unless another has at least the score with at most the active weights, and one of both strictly.
    So equal pairs are on it together or not at all. A score that is not finite is never on it.

    Raises:
        BadValue: for different numbers of scores and counts.
    """
    if len(scores) != len(active):
        raise BadValue(f"there must be as many scores as counts of active weights, got {len(scores)} and {len(active)}")
    usable = [k for k, score in enumerate(scores) if math.isfinite(score)]
    on: list[int] = []
    for k in sorted(usable, key=lambda k: (active[k], -scores[k], k)):
        same = bool(on) and (scores[k], active[k]) == (scores[on[-1]], active[on[-1]])
        if not on or same or scores[k] > scores[on[-1]]:
            on.append(k)
    return on
