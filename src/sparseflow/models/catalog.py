"""Models by name, and how a model is made without spending time or memory on values that are then replaced."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

import torch
from torch import nn

from sparseflow.core import Catalog

Made = TypeVar("Made")
Constructor = Callable[..., nn.Module]
"""(input_shape, classes, **options) -> the network."""


class Models(Catalog[Constructor]):
    """Constructors by name; what a model can be told is read off its constructor.

    Facts of every entry:
        options: option name -> the model's own default, its keyword-only parameters.
        example: an input shape that the model takes with its default options, small where it can be.
        stacked: whether studies may train it stacked (false if not given).
    """

    def add(self, name: str, *, cite: str, **facts: Any) -> Callable[[Made], Made]:
        def enter(make: Made) -> Made:
            named = [
                p for p in signature(cast(Constructor, make)).parameters.values() if p.kind is Parameter.KEYWORD_ONLY
            ]
            options = {p.name: p.default for p in named}
            return super(Models, self).add(name, cite=cite, options=options, **facts)(make)

        return enter


models = Models("model")


def sketch(name: str, input_shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """The model on torch's meta device: names and shapes without memory, from which masks and budgets are made."""
    with torch.device("meta"):
        return models[name](input_shape, classes, **options)


def materialise(model: nn.Module, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """Give every tensor of a sketch memory, and its modules' own initial values (normalisation, activation parameters).

    Weights (two dimensions or more) become NaN, so that one which `sparseflow.init` is then not asked to draw cannot
    pass unseen. Biases of weight layers become 0: torch's own `reset_parameters` would draw them from its global
    generator.
    """
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not any(t.is_meta for t in own):
            continue
        module.to_empty(device=device, recurse=False)
        parameters = list(module.parameters(recurse=False))
        if any(p.dim() >= 2 for p in parameters):
            for parameter in parameters:
                nn.init.constant_(parameter, torch.nan if parameter.dim() >= 2 else 0.0)
        elif (reset := getattr(module, "reset_parameters", None)) is not None:
            reset()
    return model.to(device=device, dtype=dtype)
