"""Activation functions and their derivatives, drawn (001 Fig. 2.3, 2.5 and A.9; 003 Fig. 3 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseflow.models import activations
from sparseflow.models.activations import pswish
from sparseflow.report.blocks import Block, Figure
from sparseflow.report.figures import COLOURS, look, panels, save
from sparseflow.reproduce.makers.registry import makers
from sparseflow.reproduce.scale import Scale

REACH, HALF = 5.0, 500
"""Inputs go from -REACH to REACH, HALF on either side of 0."""

_TITLES = {
    "relu": "ReLU",
    "prelu": "PReLU",
    "elu": "ELU",
    "swish": "Swish",
    "srelu": "SReLU",
    "sigmoid": "sigmoid",
    "mish": "Mish",
    "relu6": "ReLU6",
}
_PARTS = {"function": (False,), "derivative": (True,), "both": (False, True)}
_STROKES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), "-")
"""Lines lie upon each other for positive inputs: colours alone would hide some."""


@dataclass(frozen=True)
class Sampled:
    """A function of one number: its values and slopes at the inputs."""

    name: str
    values: Sequence[float]
    slopes: Sequence[float]


@makers.add("functions", cite="001 Fig. 2.3, 2.5, A.9; 003 Fig. 3, 5")
def functions(
    options: Mapping[str, Any], scale: Scale, folder: Path, progress: Callable[[int, int], None]
) -> list[Block]:
    """Activation functions against their input, their derivatives, or both.

    Options: `names` of the catalog of activations, or tanh; `betas` of PSwish, drawn beside them; `what` is function,
    derivative or both. Learned parameters have the values that a training begins with. Every scale is the same.

    Raises:
        UnknownName: for a name that no activation has.
        ValueError: for another `what`.
    """
    what = str(options.get("what", "function"))
    if what not in _PARTS:
        raise ValueError(f"what is {', '.join(_PARTS)}, got {what!r}")
    at = REACH * torch.arange(-HALF, HALF + 1, dtype=torch.float64) / HALF
    wanted: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        (_TITLES.get(name, name), torch.tanh if name == "tanh" else activations[name]().double())
        for name in map(str, options.get("names", ()))
    ]
    for beta in options.get("betas", ()):
        wanted.append((f"PSwish, β = {beta:g}", _pswish(beta)))
    found = []
    for number, (name, function) in enumerate(wanted, 1):
        found.append(sampled(name, function, at))
        progress(number, len(wanted))
    return [_figure(found, at.tolist(), _PARTS[what], folder / "figures")]


def _pswish(beta: float) -> Callable[[Tensor], Tensor]:
    slope = torch.tensor(float(beta), dtype=torch.float64)
    return lambda x: pswish(x, slope)


def sampled(name: str, function: Callable[[Tensor], Tensor], at: Tensor) -> Sampled:
    """The function at the inputs, with its derivative by automatic differentiation."""
    x = at.clone().requires_grad_(True)
    y = function(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    return Sampled(name, y.detach().tolist(), slopes.tolist())


def _figure(found: Sequence[Sampled], at: Sequence[float], parts: Sequence[bool], folder: Path) -> Figure:
    with look():
        canvas, axes = panels(len(parts), width=3.5, height=3.0, share_y=False)
        for axis, derivative in zip(axes, parts, strict=True):
            for k, one in enumerate(found):
                curve = one.slopes if derivative else one.values
                style: Any = {"color": COLOURS[k % len(COLOURS)], "linestyle": _STROKES[k % len(_STROKES)]}
                axis.plot(at, curve, label=one.name if axis is axes[0] else None, **style)
            axis.axhline(0.0, color="#888888", linewidth=0.7, zorder=1)
            axis.axvline(0.0, color="#888888", linewidth=0.7, zorder=1)
            axis.set(xlabel="x", ylabel="f'(x)" if derivative else "f(x)", xlim=(-REACH, REACH))
        # Long legends in more than one line would be wider than a single panel.
        canvas.legend(loc="outside upper left", ncols=min(len(found), 3 * len(parts)))
        rows = [
            [one.name, x, y, slope] for one in found for x, y, slope in zip(at, one.values, one.slopes, strict=True)
        ]
        svg = save(canvas, folder, "functions", ["function", "x", "value", "derivative"], rows)
    both = "Activation functions and their derivatives"
    title = both if len(parts) > 1 else "Derivatives of activation functions" if parts[0] else "Activation functions"
    caption = (
        f"{title} for inputs from {-REACH:g} to {REACH:g}; parameters that are learned have the values that "
        "a training begins with."
    )
    if any(parts):
        caption += " Derivatives by automatic differentiation, which gives ReLU the slope 0 at 0."
    return Figure(title, caption, "functions", svg)
