"""What is known of optimisers: what their state starts at, and which of them mix the entries of a weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, stand_ins
from sparseflow.train.bits import keep_

Group = Mapping[str, Any]
"""A parameter group of an optimiser: its settings, such as "lr"."""

Start = float | Callable[[Group], float]
"""What every element of a state starts at, or that as a function of the parameter group's settings."""

_INITIAL: dict[type[torch.optim.Optimizer], dict[str, Start]] = {}


def register_initial_state(kind: type[torch.optim.Optimizer], starts: Mapping[str, Start]) -> None:
    """Say at what an optimiser's elementwise state starts, for `Sparse` to give masked weights back.

    Holds for the class and its subclasses; what is not registered starts at 0.

    Args:
        kind: the optimiser's class.
        starts: key in `optimizer.state[parameter]` -> initial value.

    Raises:
        BadValue: if `kind` is no class of optimisers.
    """
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise BadValue(f"kind must be a subclass of torch.optim.Optimizer, got {kind!r}")
    _INITIAL[kind] = {**_INITIAL.get(kind, {}), **starts}


# Every other elementwise state of torch.optim starts at 0.
register_initial_state(torch.optim.Adagrad, {"sum": lambda group: float(group["initial_accumulator_value"])})
register_initial_state(torch.optim.Rprop, {"step_size": lambda group: float(group["lr"])})

ELEMENTWISE = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
)
"""Of torch's optimisers those whose step of one element depends on that element's gradient and state alone."""

# Muon is younger than the oldest torch that is supported.
MATRICES = tuple(getattr(torch.optim, name) for name in ("Adafactor", "Muon") if hasattr(torch.optim, name))
"""Of torch's optimisers those that see a weight as a matrix, by rows and columns."""


def elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is known that no element's step depends on another's; False for any class that is not torch's."""
    return type(optimizer) in ELEMENTWISE


def held(optimizer: torch.optim.Optimizer) -> set[int]:
    """The ids of the parameters that an optimiser updates."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def check_compact(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise if an optimiser of matrices would get the values of a compact layer, which are a vector.

    Raises:
        BadValue: naming the optimiser and the layer's weight.
    """
    if not isinstance(optimizer, MATRICES):
        return
    updated = held(optimizer)
    for name, layer in stand_ins(model).items():
        if id(layer.values) in updated:
            kind = type(optimizer).__name__
            raise BadValue(
                f"{kind} works on the rows and columns of {name}, whose compact layer has a vector of values; "
                f"leave the layer masked (compact(..., only=...)) or use an elementwise optimizer"
            )


def restore_initial_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, active: Tensor) -> None:
    """Give the state of the entries without bits in `active` (of `active_bits`) back its initial value, in place.

    Only state of the parameter's own shape has entries to restore: step counts, LBFGS's history and Adafactor's
    factored moments are left alone.
    """
    state = optimizer.state.get(parameter)
    if not state:
        return
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            start = _start(optimizer, key, parameter)
            if start == 0.0:
                keep_(value, active)
            else:
                value.masked_fill_(active == 0, start)


def _start(optimizer: torch.optim.Optimizer, key: str, parameter: nn.Parameter) -> float:
    for kind in type(optimizer).__mro__:
        start = _INITIAL.get(kind, {}).get(key)
        if start is not None:
            return start(_group_of(optimizer, parameter)) if callable(start) else start
    return 0.0


def _group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Group:
    return next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))


def unpickled_attributes(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Attributes that torch drops when it copies or pickles an optimiser and that some need, such as LBFGS's.

    Hooks and functions are not among them: a learning-rate schedule's wrapper of `step` would step the original.
    """
    kept = optimizer.__getstate__()
    return {
        name: value
        for name, value in vars(optimizer).items()
        if name not in kept and not name.endswith("_hooks") and not callable(value)
    }


def move_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, source: Tensor, before: int) -> None:
    """Carry the elementwise state of a vector of values along when they are rewired.

    Args:
        source: for each new value its index among the old ones; -1 for a new one, whose state is the initial one.
        before: how many old values there were.
    """
    new = source < 0
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == (before,):
            moved = value[source.clamp(min=0)] if before else value.new_zeros(len(source))
            optimizer.state[parameter][key] = moved.masked_fill_(new, _start(optimizer, key, parameter))


def snapshot(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Remember the parameters and the state of an optimiser; the result puts them back."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values = [p.detach().clone() for p in parameters]
    states = [
        {k: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in optimizer.state[p].items()}
        if p in optimizer.state
        else None
        for p in parameters
    ]

    @torch.no_grad()
    def restore() -> None:
        for parameter, value, state in zip(parameters, values, states, strict=True):
            parameter.copy_(value)
            if state is None:
                optimizer.state.pop(parameter, None)
            else:
                optimizer.state[parameter] = state

    return restore
