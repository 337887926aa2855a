"""What scores and curvature are held against: pure losses, dense Hessians, selection by numpy's sort."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from small_nets import Case
from sparseflow.core import Batch
from sparseflow.masks import Snapshot, criteria

Weights = dict[str, Tensor]


def detached(model: nn.Module) -> Weights:
    """Name -> value of every weight of two dimensions or more."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() >= 2}


def loss_of(of: Case, batches: list[Batch], training: bool = True, temperature: float = 1.0):
    """weights -> mean loss over all examples of the batches, each batch passed by itself; a pure function."""
    model = copy.deepcopy(of.model).train(training).requires_grad_(False)
    examples = sum(len(y) for _, y in batches)

    def value(weights: Mapping[str, Tensor]) -> Tensor:
        found = torch.zeros((), dtype=torch.float64)
        for x, y in batches:
            # Buffers are handed in as copies: batch norm would move them.
            buffers = {name: b.clone() for name, b in model.named_buffers()}
            outputs = functional_call(model, {**weights, **buffers}, (x,))
            found = found + len(y) / examples * of.loss(outputs / temperature, y)
        return found

    return value


def dense_hessian(of_weights: Callable[[Mapping[str, Tensor]], Tensor], weights: Weights) -> Tensor:
    """The whole matrix, of the weights concatenated in their order: row by row, the gradient of a gradient's entry."""
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    values = list(leaves.values())
    slopes = torch.autograd.grad(of_weights(leaves), values, create_graph=True)
    rows = []
    for slope in torch.cat([s.flatten() for s in slopes]):
        row = torch.autograd.grad(slope, values, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in row]))
    return torch.stack(rows)


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def ones(weights: Weights) -> dict[str, Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def scores_of(criterion: str, of: Case, *, training: bool | None = None, **options) -> Weights:
    mode = criteria.entry(criterion).facts["mode"] == "train" if training is None else training
    model = copy.deepcopy(of.model).train(mode)
    weights = detached(model)
    return criteria[criterion](Snapshot(model, list(weights), ones(weights), of.loss, of.batches), **options)


def best(scores: Mapping[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """Masks of the k best of all layers together, by numpy's sort; for scores without ties."""
    joined = np.concatenate([score.ravel() for score in scores.values()])
    border = np.sort(joined)[::-1][k - 1]
    return {name: score >= border for name, score in scores.items()}


def same(masks: Mapping[str, Tensor], expected: Mapping[str, np.ndarray]) -> bool:
    return all(np.array_equal(masks[name].numpy(), expected[name]) for name in masks)


def vector_for(weights: Weights, seed: int = 1) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=draw, dtype=w.dtype) for name, w in weights.items()}
