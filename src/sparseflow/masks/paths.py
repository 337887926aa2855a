"""Effective paths: which active weights lie on a way from an input to an output.

A weight can be active and yet do nothing: its unit gets no signal, or nothing reads it. The network is run in truth
values (`masks.follow`), as SynFlow runs it in absolute ones (Tanaka et al. 2020, arXiv:2006.05467, eq. 1): with masks
for weights, and an input of ones, weight times gradient is positive exactly where paths lead through.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Masks, check_masks
from sparseflow.masks.criteria.synflow import output_sum
from sparseflow.masks.follow import Following
from sparseflow.masks.which import prunable


@dataclass(frozen=True)
class LayerPaths:
    """What of one weight lies on paths.

    Attributes:
        weights, active, effective: numbers of entries.
        units: outputs of the layer (of a convolution: channels); None where the weight is no linear layer's or
            convolution's.
        dead: units that no path from the input reaches.
        unreachable: units that the input reaches, and from which no path leads to an output.
        masked: whether the weight has a mask.
    """

    name: str
    shape: torch.Size
    active: int
    effective: int
    units: int | None
    dead: int | None
    unreachable: int | None
    masked: bool

    @property
    def weights(self) -> int:
        return self.shape.numel()

    @property
    def density(self) -> float:
        return self.active / self.weights

    @property
    def effective_density(self) -> float:
        return self.effective / self.weights

    @property
    def collapsed(self) -> bool:
        """Nothing passes: no weight is active, or none lies on a path."""
        return self.effective == 0


@dataclass(frozen=True)
class Paths:
    """The effective part of a network.

    Attributes:
        masks: weight name -> bool, True where the weight is active and on a path; for weights without a mask too.
        layers: one entry for every weight of the model, in its order.
    """

    masks: dict[str, Tensor]
    layers: tuple[LayerPaths, ...]

    @property
    def collapsed(self) -> list[str]:
        """Names of the layers that nothing passes."""
        return [layer.name for layer in self.layers if layer.collapsed]

    @property
    def density(self) -> float:
        """Of all weights of the model, those without a mask counted as active."""
        return sum(layer.active for layer in self.layers) / sum(layer.weights for layer in self.layers)

    @property
    def effective_density(self) -> float:
        return sum(layer.effective for layer in self.layers) / sum(layer.weights for layer in self.layers)


def effective(model: nn.Module, masks: Masks, input_shape: Sequence[int]) -> Paths:
    """Which active weights lie on a path from an input to an output; the model stays as it is.

    Exact for every acyclic network of linear layers, convolutions (padding, stride and groups are followed position
    by position), normalisation, activations, pooling, sums, concatenations and rearrangements, of any depth: a path
    passes an activation whatever its sign, normalisation as its scale, a maximum from every entry of its window.
    Biases are no paths. A product of two signals is followed where both are alive or dead together, as in
    x * sigmoid(x). Networks in which signals gate signals (attention, LSTM, GRU, GLU) are refused: which of their
    weights matter depends on values, not on the mask.

    Args:
        masks: weights without one count as active throughout.
        input_shape: of one example.

    Raises:
        BadValue: for masks that are not the model's, a network that cannot be followed (names the function), compact
            layers, an input shape that the model does not take.
    """
    weights = prunable(model)
    check_masks(model, masks)
    work = _of_masks(model, weights, masks)
    parts = {name: work.get_parameter(name) for name in weights}
    source, _ = _run(work, parts, input_shape, fill=0.0)
    for name, out, _ in source.uses:
        if out.any():
            raise BadValue(f"paths cannot be followed: {name} gets a signal that does not come from the input")
    run, total = _run(work, parts, input_shape, fill=1.0)
    wanted = [*parts.values(), *(out for _, out, _ in run.uses)]
    slopes = torch.autograd.grad(total, wanted, materialize_grads=True)
    found = {name: part.detach() * g > 0 for (name, part), g in zip(parts.items(), slopes, strict=False)}
    units = _units(run, slopes[len(parts) :])
    layers = tuple(
        _layer(name, part, found[name], units.get(name), masked=name in masks) for name, part in parts.items()
    )
    return Paths(found, layers)


def _layer(name: str, part: Tensor, found: Tensor, units: tuple[int, int, int] | None, *, masked: bool) -> LayerPaths:
    count, dead, unreachable = units or (None, None, None)
    active, effective = int(part.count_nonzero()), int(found.count_nonzero())
    return LayerPaths(name, part.shape, active, effective, count, dead, unreachable, masked)


def _of_masks(model: nn.Module, weights: Iterable[str], masks: Masks) -> nn.Module:
    """A copy whose weights are their masks, and whose other parameters are 1.

    In float64 on the CPU: its convolutions are plain sums of products, in which what is 0 stays 0. Others go through
    transforms (Winograd, Fourier) that leave a rest of rounding where there is no path.
    """
    work = copy.deepcopy(model).to("cpu", torch.float64).eval()
    with torch.no_grad():
        for parameter in work.parameters():
            parameter.requires_grad_(False).fill_(1.0)
        for name, mask in masks.items():
            work.get_parameter(name).copy_(mask)
    for name in weights:
        work.get_parameter(name).requires_grad_(True)
    return work


def _run(
    work: nn.Module, parts: dict[str, nn.Parameter], input_shape: Sequence[int], fill: float
) -> tuple[Following, Tensor]:
    """The model on an input of one value, and the sum of its outputs."""
    signal = torch.full((1, *input_shape), fill, dtype=torch.float64, requires_grad=True)
    following = Following({id(part): name for name, part in parts.items()})
    try:
        with following, torch.enable_grad():
            out = work(signal)
    except BadValue:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadValue(f"the model does not take an input of ones of shape {tuple(input_shape)}: {why}") from None
    total = output_sum(out)
    if not total.isfinite() or total < 0 or not total.requires_grad:
        raise BadValue("paths cannot be followed to the output: it is not a sum of what the layers give")
    return following, total


def _units(run: Following, slopes: Sequence[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Weight name -> (units, dead ones, unreachable ones); a unit of several uses or places is as good as its best."""
    reached: dict[str, Tensor] = {}
    passed: dict[str, Tensor] = {}
    for (name, out, axis), slope in zip(run.uses, slopes, strict=True):
        alive = out.detach().movedim(axis, 0).flatten(1) > 0
        through = alive & (slope.movedim(axis, 0).flatten(1) > 0)
        reached[name] = reached.get(name, torch.tensor(False)) | alive.any(1)
        passed[name] = passed.get(name, torch.tensor(False)) | through.any(1)
    counts = {}
    for name, alive in reached.items():
        count = int(alive.count_nonzero())
        counts[name] = (alive.numel(), alive.numel() - count, count - int(passed[name].count_nonzero()))
    return counts
