"""Measurements in the form in which a study hands them to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sparseflow.core import Batch, Loss, Masks, Metric
from sparseflow.measure.gradient_flow import Average, gradient_flow


@dataclass(frozen=True)
class GradientFlowProbe:
    """Gradient flow on fixed batches; options as in `gradient_flow`."""

    loss: Loss
    batches: tuple[Batch, ...]
    average: Average = "gradient"
    batch_norm: Literal["train", "eval"] = "train"
    others: bool = False
    per_weight: bool = False

    def __call__(self, model: nn.Module, masks: Masks) -> Mapping[Metric, float]:
        return gradient_flow(
            model,
            self.loss,
            self.batches,
            masks,
            average=self.average,
            batch_norm=self.batch_norm,
            others=self.others,
            per_weight=self.per_weight,
        ).metrics()
