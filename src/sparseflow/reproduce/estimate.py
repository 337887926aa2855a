"""Which scale fits into so many minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparseflow.reproduce.scale import LADDER, Scale

_GROWTH = 1.5
"""A rung that would take so many times what there is, by the one below and their shares of work, is not timed."""


@dataclass(frozen=True)
class Chosen:
    """A scale and how long it is expected to take, in seconds."""

    scale: Scale
    seconds: float


def choose(
    minutes: float,
    seconds: Callable[[Scale], float],
    work: Callable[[Scale], float],
    ladder: Sequence[Scale] = LADDER,
) -> Chosen:
    """The largest scale that is expected to end within so many minutes; the smallest one if none is.

    Rungs are timed from the smallest up, and the next one only if what it asks for, in proportion to the last, may
    fit: timing a step of a large network takes longer than all of a small study.

    Args:
        seconds: a scale's estimated time on this machine, which may take a while to find.
        work: a scale's arithmetic in any unit, known at once.
    """
    rungs = list(reversed(ladder))
    chosen = Chosen(rungs[0], seconds(rungs[0]))
    for rung in rungs[1:]:
        if chosen.seconds > 60 * minutes:
            break
        if chosen.seconds * work(rung) / work(chosen.scale) > _GROWTH * 60 * minutes:
            break
        time = seconds(rung)
        if time > 60 * minutes:
            break
        chosen = Chosen(rung, time)
    return chosen
