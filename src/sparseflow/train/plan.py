"""How to train, and how a training ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch.nn import functional as F

from sparseflow.core import Loss
from sparseflow.train.schedules import Schedule


@dataclass(frozen=True)
class Plan:
    """How to train; everything random follows from `seed`."""

    epochs: int
    batch_size: int = 128
    seed: int = 0
    augment: bool = False
    crop: str = "pad"
    """The crop (of `data.crops`) by which augmentation is done."""
    l1: float = 0.0
    points: int = 11
    eval_every: int = 1
    schedule: Callable[[int, int], Schedule] | None = None
    """(total steps, steps per epoch) -> schedule; None keeps the optimiser's rates."""
    loss: Loss = F.cross_entropy
    """Of evaluation, and of training unless `training_loss` is another."""
    training_loss: Loss | None = None
    """Such as `smoothed(0.1)`; None trains by `loss`."""

    def batches_per_epoch(self, examples: int) -> int:
        """Of a pass over so many examples; a last batch of one, which has no batch statistics, is left out."""
        whole, rest = divmod(examples, self.batch_size)
        return whole + (rest > 1 or whole == 0)


@dataclass
class Outcome:
    """How a training ended."""

    status: str
    """finished, diverged (training loss or weights not finite) or stopped (asked to; a checkpoint was written)."""
    step: int
    epoch: int
    """Whole epochs finished."""
    examples: int
    """Training examples seen, repeats counted."""
    final: dict[str, float] = field(default_factory=dict)
    """Metric -> value at the end of the last epoch; `best_*` at the epoch of highest validation accuracy."""
    digest: str = ""
    """SHA-256 of the final parameters and buffers."""
