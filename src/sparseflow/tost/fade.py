"""How ghosts fade: the share alpha of them that is left, as a pure function of the optimiser step.

003 publishes no schedule: it says that alpha falls from 1 to 0 "in a scheduled way", right before the first decay of
the learning rate. The shapes here are readings of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, cos, floor, pi

from sparseflow.core import BadValue, Catalog, check_positive

fades: Catalog[Callable[..., float]] = Catalog("fade")
"""name -> (progress in [0, 1], **options) -> share left. Facts: `options`, the option names it takes; `ends_at`, the
share at progress 1."""


@fades.add("linear", cite="003 sec. 2.2", options=(), ends_at=0.0)
def linear(progress: float) -> float:
    """A straight line from 1 to 0."""
    return 1.0 - progress


@fades.add("cosine", cite="003 sec. 2.2", options=(), ends_at=0.0)
def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1.0 + cos(pi * progress)) / 2.0


@fades.add("step", cite="003 sec. 2.2", options=("stairs",), ends_at=0.0)
def step(progress: float, *, stairs: int) -> float:
    """Equal stairs down from 1, the last of them onto 0 at the very end."""
    return 1.0 - floor(progress * stairs) / stairs


@fades.add("constant", cite="003 Fig. 6: kept for ever, or removed abruptly", options=(), ends_at=1.0)
def constant(progress: float) -> float:
    """All of it until it is gone."""
    return 1.0


@dataclass(frozen=True)
class Fade:
    """Optimiser step (from 0) -> alpha. Steps 0 to end - 1 are ghost steps.

    At the last of them alpha is where the shape ends: 0 for all but "constant". So the network computes there what it
    computes without ghost skips, and with ghost neurons at their largest beta.

    Args:
        shape: name in `fades`.
        end: the first step without ghosts; None keeps them for ever, at the shape "constant".
        alpha: of the first step, in [0, 1]; the paper's is 1.
        stairs: of the shape "step", and only of it: 4 by default.

    Raises:
        UnknownName: for another shape.
        BadValue: for an end below 1, no end with a shape that needs one, alpha outside of [0, 1], stairs below 1 or for
            a shape without any.
    """

    shape: str = "linear"
    end: int | None = None
    alpha: float = 1.0
    stairs: int | None = None

    def __post_init__(self) -> None:
        entry = fades.entry(self.shape)
        if not 0.0 <= self.alpha <= 1.0:
            raise BadValue(f"alpha must be in [0, 1], got {self.alpha:g}")
        if self.end is None and self.shape != "constant":
            raise BadValue(f"fade {self.shape!r} needs an end, in optimiser steps; only 'constant' can go on for ever")
        if self.end is not None:
            check_positive("the end of a fade, in optimiser steps,", self.end)
        if self.stairs is not None:
            if "stairs" not in entry.facts["options"]:
                raise BadValue(f"fade {self.shape!r} has no stairs; 'step' has")
            check_positive("stairs", self.stairs)

    def __call__(self, step: int) -> float:
        """Alpha at an optimiser step; 0 from the end on."""
        if self.over(step):
            return 0.0
        entry = fades.entry(self.shape)
        progress = 0.0 if self.end is None else step / (self.end - 1) if self.end > 1 else 1.0
        options = {"stairs": 4 if self.stairs is None else self.stairs} if entry.facts["options"] else {}
        return self.alpha * entry.make(progress, **options)

    def over(self, step: int) -> bool:
        """Whether there are no ghosts any more at an optimiser step."""
        return self.end is not None and step >= self.end


def until(
    epoch: float,
    steps_per_epoch: int,
    *,
    epochs: float,
    shape: str = "linear",
    alpha: float = 1.0,
    stairs: int | None = None,
) -> Fade:
    """A fade whose ghosts are gone at an epoch: given the learning rate's first milestone, just before that decay.

    The first step without ghosts is the first one that `train.schedules`' "step" gives the decayed rate.

    Args:
        epoch: whole or not; a later milestone makes the ablation "removed late" of 003 Fig. 6.
        epochs: of the whole training.
        shape, alpha, stairs: as of `Fade`.

    Raises:
        BadValue: for an epoch that is not in (0, epochs], and as `Fade`.
    """
    check_positive("steps_per_epoch", steps_per_epoch)
    if not 0.0 < epoch <= epochs:
        raise BadValue(f"ghosts must be gone within the training of {epochs:g} epochs, got epoch {epoch:g}")
    return Fade(shape, ceil(epoch * steps_per_epoch), alpha, stairs)
