"""How a paper's experiment is made smaller: a ladder of scales, each a few numbers that one set of rules applies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from sparseflow.core import BadValue

LEAST_WIDTH, LEAST_CHANNELS = 40, 4
"""Of a perceptron, and of the first stage of a convolutional network, however small the scale."""


@dataclass(frozen=True)
class Scale:
    """One rung of the ladder.

    Attributes:
        name: "full", "medium", "small", or its number on the ladder.
        epochs: what epochs, and with the data the steps of schedules, are divided by; at least one epoch is left.
        examples, tests: training and test examples at most; None for all. Batches are an eighth of the examples at
            most.
        width: what the widths of perceptrons and the channels of convolutional networks are divided by.
        seeds: seeds at most.
        points: measuring points along a training at most.
        dense_widths: of the five of a capacity-matched comparison.
        samples: vectors that a search tries at most.
        draws: masks and inputs of a study of signals at most.
    """

    name: str
    epochs: int = 1
    examples: int | None = None
    tests: int | None = None
    width: int = 1
    seeds: int | None = None
    points: int | None = None
    dense_widths: int | None = None
    samples: int | None = None
    draws: int | None = None

    @property
    def full(self) -> bool:
        """Whether it is the paper's own."""
        return self == LADDER[0]

    def batch(self, asked: int) -> int:
        """The batch size in place of the one asked for."""
        return asked if self.examples is None else min(asked, max(8, self.examples // 8))

    def shorter(self, epochs: float) -> int:
        """Epochs in place of the paper's."""
        return max(1, round(epochs / self.epochs))

    def perceptron(self, width: int) -> int:
        """Units of a hidden layer in place of the paper's."""
        return width if self.width == 1 else min(width, max(LEAST_WIDTH, ceil(width / self.width)))

    def channels(self, width: int) -> int:
        """Channels of the first stage in place of the paper's."""
        return width if self.width == 1 else min(width, max(LEAST_CHANNELS, ceil(width / self.width)))


LADDER: tuple[Scale, ...] = (
    Scale("full"),
    Scale("1", epochs=4),
    Scale("medium", epochs=10, examples=20_480),
    Scale("3", epochs=20, examples=10_240, tests=5_000),
    Scale("4", epochs=20, examples=10_240, tests=5_000, width=2),
    Scale("5", epochs=50, examples=5_120, tests=5_000, width=4, draws=50),
    Scale("small", epochs=100, examples=2_048, tests=2_000, width=8, points=6, samples=25, draws=25),
    Scale("7", epochs=200, examples=1_024, tests=1_000, width=8, seeds=3, points=4, samples=16, draws=12),
    Scale("8", epochs=400, examples=512, tests=500, width=16, seeds=2, points=3, samples=10, draws=8),
    Scale("9", epochs=1_000, examples=256, tests=250, width=32, seeds=1, points=2, samples=6, draws=5),
    Scale("10", 1_000, 128, 128, width=64, seeds=1, points=2, dense_widths=2, samples=4, draws=3),
)
"""From the paper's own down to what an impatient look takes; every rung is smaller than the one before. The last
one's examples are hardly more than CIFAR-100's classes."""


def at_most(count: int, most: int | None) -> int:
    """`count`, or the most that a scale has of it."""
    return count if most is None else min(count, most)


NAMED = ("full", "medium", "small")

STAND_INS: Mapping[str, str] = {"imagenet": "cifar-100", "tiny-imagenet": "cifar-100"}
"""Data sets that every scale below full replaces: their images are too many and too large for a small machine."""


def scale_named(text: str) -> Scale:
    """The scale of this name or number on the ladder.

    Raises:
        BadValue: for another text.
    """
    found = next((scale for k, scale in enumerate(LADDER) if text in (scale.name, str(k))), None)
    if found is None:
        raise BadValue(f"--scale is {', '.join(NAMED)}, a rung from 0 to {len(LADDER) - 1}, or minutes=N, got {text!r}")
    return found


def minutes_of(text: str) -> float | None:
    """N of "minutes=N"; None for another kind of scale.

    Raises:
        BadValue: for a number that is none, or not above 0.
    """
    matched = re.fullmatch(r"minutes=(.*)", text)
    if matched is None:
        return None
    try:
        minutes = float(matched[1])
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < float("inf"):
        raise BadValue(f"--scale minutes=N needs a number above 0, got {matched[1]!r}")
    return minutes
