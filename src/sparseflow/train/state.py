"""What optimiser state starts at, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.train.bits import keep_

Group = dict[str, Any]

# State that does not start at 0. Every other elementwise state of torch.optim does.
_INITIAL: dict[type[torch.optim.Optimizer], dict[str, Callable[[Group], float]]] = {
    torch.optim.Adagrad: {"sum": lambda group: float(group["initial_accumulator_value"])},
    torch.optim.Rprop: {"step_size": lambda group: float(group["lr"])},
}


def restore_initial_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, active: Tensor) -> None:
    """Give the state of the entries without bits in `active` (of `active_bits`) back its initial value, in place.

    Only state of the parameter's own shape has entries to restore: step counts, LBFGS's history and Adafactor's
    factored moments are left alone.
    """
    state = optimizer.state.get(parameter)
    if not state:
        return
    initial = next((known for kind, known in _INITIAL.items() if isinstance(optimizer, kind)), {})
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            start = initial[key](_group_of(optimizer, parameter)) if key in initial else 0.0
            if start == 0.0:
                keep_(value, active)
            else:
                value.masked_fill_(active == 0, start)


def _group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Group:
    return next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
