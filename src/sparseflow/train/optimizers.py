"""Optimisers by name: torch's own, with the settings of the papers as defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from sparseflow.core import BadValue, Catalog

optimizers: Catalog[Callable[..., torch.optim.Optimizer]] = Catalog("optimizer")
"""name -> constructor (parameters, **torch's keywords). Facts: `options`, our option names -> torch's keyword (an int
marks a place in `betas`); `fused`, whether torch has a fused CPU and CUDA implementation; `elementwise`, whether every
element is updated by itself, so that many networks can share one tensor (stacked training)."""

IMPLEMENTATIONS = ("auto", "plain", "foreach", "fused")


@optimizers.add("sgd", cite="Robbins & Monro 1951", label="SGD", options={}, elementwise=True, fused=True)
def sgd(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Stochastic gradient descent without momentum."""
    return torch.optim.SGD(parameters, **settings)


@optimizers.add(
    "momentum",
    cite="Polyak 1964; Sutskever et al. 2013",
    label="Mom",
    options={"momentum": "momentum"},
    elementwise=True,
    fused=True,
)
def momentum(parameters: Iterable[nn.Parameter], *, momentum: float = 0.9, **settings: Any) -> torch.optim.Optimizer:
    """SGD with momentum, 0.9 by default."""
    return torch.optim.SGD(parameters, momentum=momentum, **settings)


@optimizers.add(
    "adagrad", cite="Duchi et al. 2011", label="Adagrad", options={"eps": "eps"}, elementwise=True, fused=True
)
def adagrad(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Adagrad: steps divided by the root of the sum of squared gradients."""
    return torch.optim.Adagrad(parameters, **settings)


@optimizers.add(
    "rmsprop",
    cite="Hinton et al. 2012",
    label="RMSProp",
    options={"smoothing": "alpha", "eps": "eps"},
    elementwise=True,
    fused=False,
)
def rmsprop(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """RMSProp, smoothing 0.99 as torch (the paper it cites: 0.9)."""
    return torch.optim.RMSprop(parameters, **settings)


_ADAM_OPTIONS = {"beta1": 0, "beta2": 1, "eps": "eps"}


@optimizers.add(
    "adam", cite="Kingma & Ba 2014, arXiv:1412.6980", label="Adam", options=_ADAM_OPTIONS, elementwise=True, fused=True
)
def adam(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Adam; weight decay is coupled (an L2 penalty in the gradient)."""
    return torch.optim.Adam(parameters, **settings)


@optimizers.add(
    "adamw",
    cite="Loshchilov & Hutter 2017, arXiv:1711.05101",
    label="AdamW",
    options=_ADAM_OPTIONS,
    elementwise=True,
    fused=True,
)
def adamw(parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay, 0 unless set."""
    return torch.optim.AdamW(parameters, **settings)


_DEFAULT_BETAS = (0.9, 0.999)


def make_optimizer(
    name: str,
    parameters: Iterable[Any],
    *,
    lr: float,
    weight_decay: float = 0.0,
    implementation: str = "auto",
    **options: float,
) -> torch.optim.Optimizer:
    """An optimiser from the catalog.

    Args:
        parameters: parameters or parameter groups.
        weight_decay: coupled (L2) for all but `adamw`.
        implementation: torch's "plain" loop, "foreach" or "fused"; "auto" takes fused where torch has it, else plain.
        options: those of the catalog entry's `options` fact.

    Raises:
        UnknownName: for an optimiser that is not in the catalog.
        BadValue: for an option it does not have, or a fused implementation that does not exist.
    """
    entry = optimizers.entry(name)
    known: dict[str, Any] = dict(entry.facts["options"])
    settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    betas = list(_DEFAULT_BETAS)
    for option, value in options.items():
        if option not in known:
            raise BadValue(f"optimizer {name!r} has no option {option!r} (it has: {', '.join(known) or 'none'})")
        place = known[option]
        if isinstance(place, int):
            betas[place] = value
            settings["betas"] = tuple(betas)
        else:
            settings[place] = value
    chosen = resolve_implementation(name, implementation)
    settings["foreach"] = chosen == "foreach"
    if entry.facts["fused"]:
        settings["fused"] = chosen == "fused"
    return entry.make(parameters, **settings)


def resolve_implementation(name: str, implementation: str) -> str:
    """The torch implementation that `implementation` names for this optimiser; "auto" is fused where it exists."""
    if implementation not in IMPLEMENTATIONS:
        raise BadValue(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")
    fused = bool(optimizers.entry(name).facts["fused"])
    if implementation == "auto":
        return "fused" if fused else "plain"
    if implementation == "fused" and not fused:
        raise BadValue(f"torch has no fused {name}; use auto, plain or foreach")
    return implementation


def parameter_groups(
    weights: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, decay_others: bool
) -> list[dict[str, Any]]:
    """Groups in which the non-weight parameters (biases, normalisation, activations) decay only if asked to."""
    groups: list[dict[str, Any]] = [{"params": list(weights)}]
    rest = list(others)
    if rest:
        groups.append({"params": rest} if decay_others else {"params": rest, "weight_decay": 0.0})
    return groups
