"""Dead units: those through which nothing goes from a batch of inputs to the outputs.

A hook on modules would miss activations that are written as functions, so units are watched where layers give them, and
what becomes of them is read off the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparseflow.core import BadValue, stream

LAYERS = frozenset(["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
"""Their outputs are units: of `linear` the last axis, of the convolutions axis 1, the channels."""

ROUNDING = 32.0
"""In units of a type's precision: what is smaller than that, compared with the largest of its layer, is 0. Some
convolutions (Winograd, Fourier) leave a rest of rounding where all weights are 0."""


class UnitWatch(TorchFunctionMode):
    """Inside, what linear layers and convolutions give is kept, if it depends on something that requires a gradient.

    Attributes:
        uses: (weight, output, axis of the units) of each layer, in order. The weight is held, so its id stays its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uses: list[tuple[Tensor, Tensor, int]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name not in LAYERS or not out.requires_grad:
            return out
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        self.uses.append((weight, out, -1 if name == "linear" else 1))
        return out.clone()  # what comes next may work in place


class Shares(NamedTuple):
    """Of all units of a network, in [0, 1].

    A unit is an output of a linear layer or a channel of a convolution, the network's outputs among them; a layer used
    several times has its units once. What `masks.effective` says of every network with some masks, this says of one
    with its weights, and of some inputs.

    Attributes:
        unreached: those that are the same for all inputs, everywhere: nothing comes in.
        dead: these and those on which no output depends for any of the inputs: an activation that is closed for all of
            them, or nothing that reads the unit.
    """

    unreached: float
    dead: float


def outputs_and_shares(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Shares]:
    """Run the model; its outputs (examples, ...), detached, and what of its units is dead.

    Gradients are taken with respect to units alone; those of parameters that require one are not kept.

    Args:
        inputs: shape (examples, *input_shape), at least two examples.

    Returns:
        The shares are nan where the model calls no linear layer or convolution on what comes from the inputs.

    Raises:
        BadValue: for a model that takes no such input, or returns no floating-point tensor with a row an example.
    """
    probe = inputs.detach().requires_grad_(True)
    with torch.enable_grad():
        with UnitWatch() as watch:
            out = run(model, probe)
        if not watch.uses:
            return out.detach(), Shares(nan, nan)
        # In a random direction: plain sums may be constant, of outputs (softmax) or of examples (batch norm).
        draw = stream(0, "units")
        of_examples, of_outputs = (torch.randn(n, generator=draw).to(out) for n in (len(out), out[0].numel()))
        total = of_examples @ out.flatten(1) @ of_outputs
        given = [output for _, output, _ in watch.uses]
        slopes = torch.autograd.grad(total, given, materialize_grads=True)
    reached: dict[int, Tensor] = {}
    alive: dict[int, Tensor] = {}
    for (weight, output, axis), slope in zip(watch.uses, slopes, strict=True):
        moves = _varies(output.detach(), axis)
        for found, of_this in ((reached, moves), (alive, moves & _matters(slope, axis))):
            found[id(weight)] = found[id(weight)] | of_this if id(weight) in found else of_this
    return out.detach(), Shares(_lacking(reached.values()), _lacking(alive.values()))


def run(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the model gives for the inputs.

    Raises:
        BadValue: for a model that does not take them, or returns no floating-point tensor with a row an example.
    """
    try:
        out = model(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadValue(f"the model does not take normal inputs of shape {tuple(inputs.shape[1:])}: {why}") from None
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.dim() == 0 or len(out) != len(inputs):
        got = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise BadValue(f"the model must return a floating-point tensor with a row for each of its inputs, got {got}")
    return out


def _varies(out: Tensor, axis: int) -> Tensor:
    """(units,) bool: whether a unit differs between examples, at any position."""
    spread = (out.amax(0) - out.amin(0)).unsqueeze(0).movedim(axis, 0).flatten(1).amax(1)
    return spread > _rest(out)


def _matters(slope: Tensor, axis: int) -> Tensor:
    """(units,) bool: whether the outputs change with a unit, for any example and position."""
    return slope.abs().movedim(axis, 0).flatten(1).amax(1) > _rest(slope)


def _lacking(units: Iterable[Tensor]) -> float:
    found = torch.cat(list(units))
    return 1 - int(found.count_nonzero()) / found.numel()


def _rest(values: Tensor) -> Tensor:
    return ROUNDING * torch.finfo(values.dtype).eps * values.abs().amax()
