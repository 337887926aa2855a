"""Measurements in the form in which a study hands them to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from sparseflow.core import Batch, Loss, Masks, Metric
from sparseflow.measure.gradient_flow import Average, GradientFlow, gradient_flow, layer_flows, measured_names


@dataclass(frozen=True)
class GradientFlowProbe:
    """Gradient flow on fixed batches; options as in `gradient_flow`."""

    loss: Loss
    batches: tuple[Batch, ...]
    average: Average = "gradient"
    batch_norm: Literal["train", "eval"] = "train"
    others: bool = False
    per_weight: bool = False
    _names: WeakKeyDictionary[nn.Module, list[str]] = field(default_factory=WeakKeyDictionary, repr=False)
    """Names of the layers of a model that was measured before."""

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

    def takes_gradients(self) -> bool:
        return self.average == "gradient" and self.batch_norm == "train"

    def of_gradients(self, model: nn.Module, masks: Masks, gradients: Mapping[str, Tensor]) -> Mapping[Metric, float]:
        if model not in self._names:
            self._names[model] = measured_names(model, others=self.others)
        some = {name: gradients[name] for name in self._names[model]}
        active = {name: int(mask.sum()) for name, mask in masks.items()}
        counts = {name: active.get(name, gradient.numel()) for name, gradient in some.items()}
        return GradientFlow.of(layer_flows(some, masks, counts), per_weight=self.per_weight).metrics()
