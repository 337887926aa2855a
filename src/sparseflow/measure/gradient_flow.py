"""Gradient flow and effective gradient flow (001 eq. 3.5-3.7; 000 eq. 5-7; 004 sec. 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from sparseflow.autodiff import mean_weight_gradients
from sparseflow.core import (
    BadValue,
    Batch,
    Loss,
    Masks,
    Metric,
    active_counts,
    check_masks,
    other_parameters,
    stand_ins,
    weight_shapes,
)
from sparseflow.measure.probing import BatchNorm, probing

Average = Literal["gradient", "norms"]


@dataclass(frozen=True)
class LayerFlow:
    """Norms of one layer's gradient g: over all its weights, and over the active ones (g * m)."""

    l1: float
    l2: float
    active_l1: float
    active_l2: float
    active: int


MEASURES = ("gf_1", "gf_2", "egf_1", "egf_2", "squared")


@dataclass(frozen=True)
class GradientFlow:
    """Gradient norms by layer, and the measures of the network.

    Attributes:
        gf_1, gf_2: ||g||_p over all weight gradients, masked weights included (001 eq. 3.5).
        egf_1, egf_2: (1/L) sum_l ||g_l * m_l||_p (001 eq. 3.6, 3.7).
        squared: sum of squares over active weights (004 sec. 3).
    """

    layers: Mapping[str, LayerFlow]
    gf_1: float
    gf_2: float
    egf_1: float
    egf_2: float
    squared: float

    @classmethod
    def of(cls, layers: Mapping[str, LayerFlow], *, per_weight: bool = False) -> GradientFlow:
        """The measures of one gradient; `per_weight` divides each layer's EGF term by its number of active weights."""
        every = list(layers.values())
        sizes = [max(1, layer.active) if per_weight else 1 for layer in every]
        return cls(
            layers,
            gf_1=sum(layer.l1 for layer in every),
            gf_2=sqrt(sum(layer.l2**2 for layer in every)),
            egf_1=sum(layer.active_l1 / size for layer, size in zip(every, sizes, strict=True)) / len(every),
            egf_2=sum(layer.active_l2 / size for layer, size in zip(every, sizes, strict=True)) / len(every),
            squared=sum(layer.active_l2**2 for layer in every),
        )

    @classmethod
    def mean(cls, flows: Sequence[GradientFlow]) -> GradientFlow:
        """The mean of every measure over several gradients; not the measures of their mean."""
        layers = {
            name: LayerFlow(
                fmean(flow.layers[name].l1 for flow in flows),
                fmean(flow.layers[name].l2 for flow in flows),
                fmean(flow.layers[name].active_l1 for flow in flows),
                fmean(flow.layers[name].active_l2 for flow in flows),
                layer.active,
            )
            for name, layer in flows[0].layers.items()
        }
        return cls(layers, **{measure: fmean(getattr(flow, measure) for flow in flows) for measure in MEASURES})

    def metrics(self) -> dict[Metric, float]:
        """The measures of the network and of each layer, as a study records them."""
        values = {Metric(name): getattr(self, name) for name in MEASURES}
        for name, layer in self.layers.items():
            values[Metric("gf_1", name)] = layer.l1
            values[Metric("gf_2", name)] = layer.l2
            values[Metric("egf_1", name)] = layer.active_l1
            values[Metric("egf_2", name)] = layer.active_l2
        return values


def gradient_flow(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    masks: Masks | None = None,
    *,
    average: Average = "gradient",
    batch_norm: BatchNorm = "train",
    others: bool = False,
    per_weight: bool = False,
) -> GradientFlow:
    """Measure gradient flow on a probe set; the model, its buffers and `.grad` fields come back untouched.

    Args:
        loss: the data loss, a mean over its batch, without penalty.
        batches: (inputs, targets) pairs that make up the probe.
        masks: masks of layers in masked execution; compact layers know theirs; layers without one are dense.
        average: "gradient" takes norms of the mean gradient over the probe, "norms" the mean of each batch's norms.
        batch_norm: normalise with the batch's statistics ("train"; running ones stay as they are) or the running ones.
            Everything else, dropout included, is in evaluation mode.
        others: count biases and the parameters of normalisation and activations as layers too.
        per_weight: divide each layer's EGF term by its number of active weights (002's wording; eq. 3.7 has no such
            factor); the layers' own norms stay norms.

    Raises:
        BadValue: for an unknown `average` or `batch_norm`, or a mask that fits no weight.
        SparseflowError: without batches.
    """
    if average not in ("gradient", "norms"):
        raise BadValue(f"average must be 'gradient' or 'norms', got {average!r}")
    masks = masks or {}
    check_masks(model, masks)
    active = _active_masks(model, masks)
    counts = active_counts(model, masks)
    names = measured_names(model, others=others)

    def flow(some: Iterable[Batch]) -> GradientFlow:
        layers = layer_flows(mean_weight_gradients(model, loss, some, names), active, counts)
        return GradientFlow.of(layers, per_weight=per_weight)

    with probing(model, batch_norm):
        if average == "gradient":
            return flow(batches)
        flows = [flow([batch]) for batch in batches]
        return GradientFlow.mean(flows) if flows else flow(())


def measured_names(model: nn.Module, *, others: bool) -> list[str]:
    """The layers of a gradient flow: the weights and, if asked for, the other parameters."""
    return [*weight_shapes(model), *(other_parameters(model) if others else ())]


def _active_masks(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    return dict(masks) | {name: layer.active_mask() for name, layer in stand_ins(model).items()}


def layer_flows(gradients: Mapping[str, Tensor], masks: Masks, counts: Mapping[str, int]) -> dict[str, LayerFlow]:
    """Weight name -> norms of its gradient, from dense gradients, the masks of sparse layers and active weights."""
    layers = {}
    for name, gradient in gradients.items():
        # In float64 where sums of squares over millions of float32 entries would lose digits.
        l1, l2 = _l1_l2(gradient)
        active_l1, active_l2 = _l1_l2(gradient[masks[name].to(gradient.device)]) if name in masks else (l1, l2)
        layers[name] = LayerFlow(l1, l2, active_l1, active_l2, counts.get(name, gradient.numel()))
    return layers


def _l1_l2(gradient: Tensor) -> tuple[float, float]:
    flat = gradient.reshape(-1)
    return (
        float(torch.linalg.vector_norm(flat, 1, dtype=torch.float64)),
        float(torch.linalg.vector_norm(flat, 2, dtype=torch.float64)),
    )
