"""The loss of a stack."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseflow.train.stacked.memory import room


class CrossEntropy:
    """The mean cross entropy of each member's batch, and its gradient; its tensors lie class by class."""

    def __init__(self, logits: Tensor) -> None:
        members, batch, classes = logits.shape
        self._logits = logits.transpose(1, 2)
        self._log, self._gradient = (room(members, (classes, batch), logits) for _ in range(2))
        self._picked = room(members, (1, batch), logits)
        self._one = torch.full((), -1.0, dtype=logits.dtype, device=logits.device).expand(members, 1, batch)

    def forward(self, y: Tensor, losses: Tensor) -> None:
        """y: (members, batch) classes; losses: (members,) to write into."""
        self._y = y.unsqueeze(1)
        self._log.copy_(torch.log_softmax(self._logits, 1))
        torch.gather(self._log, 1, self._y, out=self._picked)
        torch.sum(self._picked, (1, 2), out=losses)
        losses.div_(-y.shape[1])

    def right(self, y: Tensor) -> Tensor:
        """(members,) number of examples whose class has the highest logit."""
        return (self._logits.argmax(1) == y).sum(1)

    def backward(self) -> Tensor:
        """The gradient of the logits: (softmax - one at the class) / batch."""
        torch.exp(self._log, out=self._gradient)
        self._gradient.scatter_add_(1, self._y, self._one)
        return self._gradient.div_(self._y.shape[2]).transpose(1, 2)
