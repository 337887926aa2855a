"""Models by name, and how a model is made without spending time or memory on values that are then replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparseflow.core import Catalog

models: Catalog[Callable[..., nn.Module]] = Catalog("model")
"""name -> constructor (input_shape, classes, **options)."""


def sketch(name: str, input_shape: tuple[int, ...], classes: int, **options: Any) -> nn.Module:
    """The model on torch's meta device: names and shapes without memory, from which masks and budgets are made."""
    with torch.device("meta"):
        return models[name](input_shape, classes, **options)


def materialise(model: nn.Module, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """Give every tensor of a sketch memory, and its modules' own initial values (normalisation, activation parameters).

    Weights (two dimensions or more) become NaN, so that one which `sparseflow.init` is then not asked to draw cannot
    pass unseen.
    """
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not any(t.is_meta for t in own):
            continue
        module.to_empty(device=device, recurse=False)
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and any(t.dim() < 2 for t in own):
            reset()
        for parameter in module.parameters(recurse=False):
            if parameter.dim() >= 2:
                nn.init.constant_(parameter, torch.nan)
    return model.to(device=device, dtype=dtype)
