"""Loss and accuracy on a split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseflow.core import Loss, mode
from sparseflow.data import Prepared, Split

EVALUATION_BATCH = 1000
EVALUATION_VALUES = 2**24
"""Input values of one batch at most: examples of more than 16,777 values are evaluated in smaller batches."""


def evaluation_batches(data: Prepared, split: Split) -> tuple[Tensor, ...]:
    """The indices of a split in the parts that are evaluated together, where its images are."""
    size = max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // data.input_size))
    return tuple(torch.arange(len(split), device=split.x.device).split(size))


@torch.no_grad()
def evaluate(model: nn.Module, data: Prepared, split: Split, loss: Loss) -> tuple[float, float]:
    """(mean loss, accuracy in [0, 1]) of the model in evaluation mode over a whole split."""
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    right = torch.zeros((), dtype=torch.int64, device=data.device)
    with mode(model, training=False):
        for indices in split.announced(evaluation_batches(data, split)):
            x, y = data.batch(split, indices)
            logits = model(x)
            total += loss(logits, y).double() * len(indices)
            right += (logits.argmax(1) == y).sum()
    return float(total) / len(split), float(right) / len(split)
