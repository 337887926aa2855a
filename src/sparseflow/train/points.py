"""The moments of a training at which probes measure."""

from __future__ import annotations

from math import ceil


def measuring_steps(epochs: int, steps_per_epoch: int, points: int = 11) -> list[int]:
    """Optimiser steps after which to measure: the end of the first epoch, then equal parts of the whole training.

    With 11 points: the end of epoch 0 and of each tenth (000 sec. 2.2: epochs 0, 99, 199 ... 999 of 1000). In a
    training that is too short for the first epoch to end before the first part does, the first point is half way to it.
    Coinciding points of very short trainings are one point.

    Args:
        points: 1 measures the end only; 0 never.
    """
    if points <= 0:
        return []
    total = epochs * steps_per_epoch
    parts = max(1, points - 1)
    steps = {ceil(total * k / parts) for k in range(1, parts + 1)}
    if points > 1:
        first_part = min(steps)
        steps.add(steps_per_epoch if steps_per_epoch < first_part else max(1, first_part // 2))
    return sorted(steps)
