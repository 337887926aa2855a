"""Measurements in the form in which a study hands them to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sparseflow.core import Batch, Loss, Masks, Metric, mode
from sparseflow.measure.activations import Zeros, activation_zeros
from sparseflow.measure.curvature import Hessian, extremes, predicted_step
from sparseflow.measure.gradient_flow import Average, GradientFlow, gradient_flow, layer_flows, measured_names
from sparseflow.measure.probing import BatchNorm


@dataclass(frozen=True)
class GradientFlowProbe:
    """Gradient flow on fixed batches; options as in `gradient_flow`."""

    loss: Loss
    batches: tuple[Batch, ...]
    average: Average = "gradient"
    batch_norm: BatchNorm = "train"
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


PRODUCTS = 25
"""Of the Hessian with a vector, that both ends of its spectrum take: 15 to 25 along trainings of LeNet-5."""

OF_A_PRODUCT = 2
"""Gradients that such a product costs: one, and its derivative."""


@dataclass(frozen=True)
class CurvatureProbe:
    """The ends of the Hessian's spectrum over the active weights, on fixed batches (003 Fig. 2, 9a; 004 Fig. 11a).

    Metrics: "top_eigenvalue_1" (the largest), "top_eigenvalue_2" ..., "bottom_eigenvalue_1" (the most negative) ...,
    and "gradient_curvature", g'Hg / g'g of 004 eq. 28; nan for a gradient of 0.

    Args:
        top, bottom: how many of the largest and of the smallest eigenvalues.
        batch_norm, compact: as of `Hessian`.
        tolerance, max_steps: as of `extremes`.
    """

    loss: Loss
    batches: tuple[Batch, ...]
    top: int = 1
    bottom: int = 1
    batch_norm: BatchNorm = "eval"
    compact: bool = False
    tolerance: float | None = None
    max_steps: int = 1000

    def hessian(self, model: nn.Module, masks: Masks) -> Hessian:
        """The matrix itself."""
        return Hessian(model, self.loss, self.batches, masks, batch_norm=self.batch_norm, compact=self.compact)

    def __call__(self, model: nn.Module, masks: Masks) -> Mapping[Metric, float]:
        hessian = self.hessian(model, masks)
        ends = extremes(hessian, self.top, self.bottom, tolerance=self.tolerance, max_steps=self.max_steps)
        found = {Metric("gradient_curvature"): predicted_step(hessian, 0.0).curvature}
        for end, pairs in (("top", ends.top), ("bottom", ends.bottom)):
            for k, value in enumerate(pairs.values.tolist(), 1):
                found[Metric(f"{end}_eigenvalue_{k}")] = value
        return found


@dataclass(frozen=True)
class AccuracyProbe:
    """Accuracy on fixed training examples, in evaluation mode and without augmentation (001 Fig. 4.4b).

    Metric: "train_accuracy".
    """

    batches: tuple[Batch, ...]

    @torch.no_grad()
    def __call__(self, model: nn.Module, masks: Masks) -> Mapping[Metric, float]:
        with mode(model, training=False):
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in self.batches)
        return {Metric("train_accuracy"): right / sum(len(y) for _, y in self.batches)}


@dataclass(frozen=True)
class ActivationProbe:
    """Activation sparsity on fixed batches, in evaluation mode (003 Table 1).

    Metric: "activation_sparsity" of every activation module, and of all together.
    """

    batches: tuple[Batch, ...]

    def __call__(self, model: nn.Module, masks: Masks) -> Mapping[Metric, float]:
        layers = activation_zeros(model, self.batches)
        whole = sum(layers.values(), Zeros(0, 0))
        found = {Metric("activation_sparsity", name): zeros.share for name, zeros in layers.items()}
        return {Metric("activation_sparsity"): whole.share} | found
