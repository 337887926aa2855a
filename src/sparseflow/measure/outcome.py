"""Loss and accuracy of a model over batches, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Batch, Loss
from sparseflow.measure.probing import probing, read


@dataclass(frozen=True)
class Outcome:
    """Mean loss over all examples, and the share of them answered rightly; None where targets are not class numbers."""

    loss: float
    accuracy: float | None


@torch.no_grad()
def outcome(model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> Outcome:
    """Of a model in the mode it is in, for a loss that averages over its batch; NaN and infinity stay what they are.

    Raises:
        BadValue: for a loss that is not a scalar.
    """
    examples, summed, right = 0, 0.0, 0
    classes = True
    for inputs, targets in batches:
        answers = model(inputs)
        value = loss(answers, targets)
        if value.dim():
            raise BadValue(f"the loss must return a scalar tensor, got shape {tuple(value.shape)}")
        examples += len(targets)
        summed += float(value) * len(targets)
        classes = classes and targets.dim() == 1 and answers.dim() == 2 and not targets.is_floating_point()
        right += int((answers.argmax(1) == targets).sum()) if classes else 0
    return Outcome(summed / examples, right / examples if classes else None)


@torch.no_grad()
def answers(model: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """(logits, targets) of a model in evaluation mode over all examples of the batches, in their order, on the CPU."""
    with probing(model, "eval"):
        parts = [(model(inputs).cpu(), targets.cpu()) for inputs, targets in read(batches)]
    logits, targets = (torch.cat(some) for some in zip(*parts, strict=True))
    return logits, targets
