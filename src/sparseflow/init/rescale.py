"""One learned factor for every parameter block, so that a first step of SGD lowers the loss most (003 "LRsI").

GradInit (Zhu et al. 2021, arXiv:2102.08098, Algorithm 1) with masked gradients; docs/tost.md has it step by step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparseflow.autodiff import loss_at
from sparseflow.core import (
    BadValue,
    Batch,
    Loss,
    Masks,
    SparseflowError,
    check_masks,
    check_positive,
    global_stream,
    mode,
    stand_ins,
    weight_values,
)


@dataclass(frozen=True)
class Rescaling:
    """What `rescale_` did.

    Attributes:
        scales: parameter name (a compact layer's weight by its dense name) -> factor.
        norms: of the masked gradient on each iteration's first batch, before its update of the scales.
        losses: after the look-ahead step, on its second batch; None where the update went down the norm instead.
    """

    scales: dict[str, float]
    norms: list[float]
    losses: list[float | None]


def rescale_(
    model: nn.Module,
    masks: Masks,
    loss: Loss,
    batches: Iterable[Batch],
    *,
    lr: float = 0.1,
    iterations: int = 180,
    gamma: float = 1.0,
    scale_lr: float = 0.01,
    bound: float = 0.01,
    seed: int = 0,
) -> Rescaling:
    """Multiply every parameter of the model by a learned factor, in place; masked weights become exactly 0.

    An iteration takes the gradient on one batch. Where its norm is above `gamma`, the factors go down that norm;
    else they go down the loss that another batch has after one step of SGD with that gradient. Adam updates them.
    Gradients are those of active weights alone. The model is in training mode meanwhile; its running statistics stay.

    Args:
        masks: of layers in masked execution; compact layers know their own.
        loss: averages over its batch.
        batches: at least two, on the model's device; gone through again and again, so no generator that ends early.
        lr: of the look-ahead step; that of the training to come.
        gamma: the largest gradient norm; 1 in the paper.
        scale_lr, bound: of the factors: Adam's rate, and the smallest they may be.
        seed: of dropout during the search.

    Raises:
        BadValue: for lr, gamma or scale_lr that are not positive, a bound outside of (0, 1], fewer than two batches, a
            mask that fits no weight, a model without trainable parameters.
        SparseflowError: if the loss is not a scalar, or the search leaves finite numbers.
    """
    for what, value in (("lr", lr), ("gamma", gamma), ("scale_lr", scale_lr)):
        if not (value > 0.0 and isfinite(value)):
            raise BadValue(f"{what} must be positive, got {value:g}")
    if not 0.0 < bound <= 1.0:
        raise BadValue(f"bound must be in (0, 1], got {bound:g}")
    check_positive("iterations", iterations)
    check_masks(model, masks)
    blocks = _Blocks(model, masks)
    scales = torch.ones(len(blocks.names), dtype=blocks.dtype, device=blocks.device, requires_grad=True)
    adam = torch.optim.Adam([scales], lr=scale_lr)
    norms: list[float] = []
    losses: list[float | None] = []
    supply = _endless(batches)
    with mode(model, training=True), torch.enable_grad(), global_stream(seed, "rescale"), sdpa_kernel(SDPBackend.MATH):
        for _ in range(iterations):
            scaled = blocks.scaled(scales)
            slopes = blocks.gradients(loss_at(model, loss, next(supply), scaled), scaled)
            norm = torch.stack([g.square().sum().to(scales) for g in slopes.values()]).sum().sqrt()
            norms.append(float(norm.detach()))
            if norms[-1] > gamma:
                objective = norm
                losses.append(None)
            else:
                ahead = {name: value - lr * slopes[name] for name, value in scaled.items()}
                objective = loss_at(model, loss, next(supply), ahead)
                losses.append(float(objective.detach()))
            scales.grad = _finite(torch.autograd.grad(objective, scales)[0], len(norms))
            adam.step()
            with torch.no_grad():
                scales.clamp_(min=bound)
    blocks.assign(scales.detach())
    return Rescaling(dict(zip(blocks.names, scales.tolist(), strict=True)), norms, losses)


def _finite(slope: Tensor, iteration: int) -> Tensor:
    if not bool(torch.isfinite(slope).all()):
        raise SparseflowError(f"the rescaling left finite numbers at iteration {iteration}; the model is as it was")
    return slope


class _Blocks:
    """The trainable parameters of a model, as they are before the search."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        compact = stand_ins(model)
        weights = {id(p): name for name, p in weight_values(model).items()}
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self._parameters:
            raise BadValue("the model has no trainable parameters to rescale")
        self.names = [weights.get(id(p), name) for name, p in self._parameters.items()]
        """What a user calls them."""
        named = masks.keys() - compact.keys()
        masked = {id(p): masks[name] for name, p in weight_values(model).items() if name in named}
        self._outside = {name: ~masked[id(p)].to(p.device) for name, p in self._parameters.items() if id(p) in masked}
        self.start = {name: self._active(name, p.detach().clone()) for name, p in self._parameters.items()}
        first = next(iter(self._parameters.values()))
        self.dtype, self.device = first.dtype, first.device

    def _active(self, name: str, value: Tensor) -> Tensor:
        return value.masked_fill(self._outside[name], 0.0) if name in self._outside else value

    def scaled(self, scales: Tensor) -> dict[str, Tensor]:
        """Parameter name -> start times factor."""
        return {name: value * scale.to(value) for (name, value), scale in zip(self.start.items(), scales, strict=True)}

    def gradients(self, value: Tensor, by: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of active weights alone, to be differentiated again."""
        found = torch.autograd.grad(value, list(by.values()), create_graph=True, materialize_grads=True)
        return {name: self._active(name, g) for name, g in zip(by, found, strict=True)}

    @torch.no_grad()
    def assign(self, scales: Tensor) -> None:
        for (name, value), scale in zip(self.start.items(), scales, strict=True):
            self._parameters[name].copy_(value * scale.to(value))


def _endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        seen = 0
        for batch in batches:
            seen += 1
            yield batch
        if seen < 2:
            raise BadValue(f"rescaling needs at least two batches that can be gone through again, got {seen}")
