"""SynFlow: iterative synaptic flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.masks.criteria.snapshot import Snapshot, criteria
from sparseflow.masks.select import Scores


@criteria.add(
    "synflow",
    cite="Tanaka et al. 2020, arXiv:2006.05467",
    budget="global",
    rounds=100,
    mode="eval",
    needs_batches=False,
    runs_model=True,
)
def synflow(
    at: Snapshot, *, input_shape: Sequence[int] | None = None, dtype: Literal["float64", "float32"] = "float64"
) -> Scores:
    """|theta * dR/dtheta|; R sums the outputs of the network of absolute weights on ones.

    Data-free. In a chain without biases the scores of every layer sum to R (the paper's theorem 1), so that no layer
    is emptied before the others, given enough rounds.

    Args:
        input_shape: of one example; that of the first scoring batch where batches were given.
        dtype: R grows with the product of the layers' widths, and float32 overflows in deep networks.

    Raises:
        BadValue: if neither an input shape nor batches are given, or a score is not finite.
    """
    if dtype not in ("float64", "float32"):
        raise BadValue(f"dtype must be float64 or float32, got {dtype!r}")
    kind = getattr(torch, dtype)
    at.prepare(partial(_make_absolute, dtype=kind), "absolute")
    shape = _example_shape(at) if input_shape is None else tuple(input_shape)
    parameters = [at.model.get_parameter(name) for name in at.names]
    with torch.enable_grad():
        ones = torch.ones((1, *shape), dtype=kind, device=parameters[0].device)
        flow = output_sum(at.model(ones))
        slopes = torch.autograd.grad(flow, parameters, materialize_grads=True)
    # A slope can be negative behind a normalisation: a larger weight then shifts the other units down.
    scores = {name: (weight * g).abs() for (name, weight), g in zip(at.weights.items(), slopes, strict=True)}
    _check_finite(scores, at.weights, dtype)
    return scores


def _check_finite(scores: Scores, weights: Mapping[str, Tensor], dtype: str) -> None:
    for name, weight in weights.items():
        if torch.isnan(weight).any():
            raise BadValue(f"the weights of {name} are NaN")
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            further = "; float64, the default, reaches further" if dtype == "float32" else "; use smaller weights"
            raise BadValue(f"the flow through {name} overflows {dtype}{further}")


def _example_shape(at: Snapshot) -> tuple[int, ...]:
    try:
        first = next(iter(at.batches), None)
    except BadValue:
        first = None
    if first is None:
        raise BadValue("synflow needs the shape of an input; give input_shape=(channels, height, width) or batches")
    return tuple(first[0].shape[1:])


def _make_absolute(model: nn.Module, dtype: torch.dtype) -> None:
    model.to(dtype)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.abs_()


def output_sum(outputs: Any) -> Tensor:
    """The sum of all tensors in what a model returns."""
    if isinstance(outputs, Tensor):
        return outputs.sum()
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([output_sum(part) for part in parts]).sum()
