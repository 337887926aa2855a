"""Ghost neurons: ReLU is PSwish for a while, whose beta grows until it is ReLU again (003 sec. 2.2, "GSw")."""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.models import PSWISH_GAP, pswish
from sparseflow.tost.fade import Fade
from sparseflow.tost.ghosts import Ghosts, Inputs, scalar
from sparseflow.tost.trace import Trace

LARGEST_GAP = 1e-4
"""Of any activation's output at the last ghost step, by default."""
BETA_MAX = 2785.0
"""The smallest whole beta at which PSwish is within that of ReLU: sup |PSwish - ReLU| = 0.2785 / beta."""
assert PSWISH_GAP / BETA_MAX <= LARGEST_GAP < PSWISH_GAP / (BETA_MAX - 1)


class GhostReLU(nn.ReLU):
    """`nn.ReLU` while it is PSwish."""

    ghost_beta: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return _in_place(x, self.ghost_beta, inf) if self.inplace else pswish(x, self.ghost_beta)


class GhostReLU6(nn.ReLU6):
    """`nn.ReLU6` while it is PSwish cut off at 6, which is as close to it as PSwish to ReLU."""

    ghost_beta: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace:
            return _in_place(x, self.ghost_beta, self.max_val)
        return pswish(x, self.ghost_beta).clamp(max=self.max_val)


def _in_place(x: Tensor, beta: Tensor, largest: float) -> Tensor:
    """As a ReLU in place: whoever holds `x` sees the result."""
    return x.copy_(pswish(x.clone(), beta).clamp(max=largest))


_GHOST: dict[type[nn.Module], type[nn.Module]] = {nn.ReLU: GhostReLU, nn.ReLU6: GhostReLU6}
_PLAIN = {ghost: plain for plain, ghost in _GHOST.items()}


class GhostNeurons(Ghosts):
    """See `ghost_neurons_`."""

    kind = "ghost neurons"

    def __init__(self, model: nn.Module, fade: Fade, beta_max: float, probe: Inputs | None) -> None:
        super().__init__(model, fade, probe)
        self.beta_max = beta_max

    @property
    def beta(self) -> float:
        """Of the next forward pass: 1 / alpha, at most beta_max; infinite without ghosts."""
        return inf if self.finished else self._beta_of(self.alpha)

    def _beta_of(self, alpha: float) -> float:
        return min(self.beta_max, 1.0 / alpha) if alpha else self.beta_max

    @torch.no_grad()
    def _set(self, alpha: float) -> None:
        for module in self._ghosts:
            module.ghost_beta.fill_(self._beta_of(alpha))

    def _put(self, modules: list[nn.Module]) -> None:
        for module in modules:
            module.__class__ = _GHOST[type(module)]
            module.ghost_beta = scalar()
        self._ghosts: list[Any] = modules
        self._set(self.alpha)

    def _remove(self) -> None:
        remove_neurons_(self.model)
        self._ghosts = []


def ghost_neurons_(
    model: nn.Module,
    fade: Fade,
    *,
    beta_max: float = BETA_MAX,
    example: Inputs | None = None,
    probe: Inputs | None = None,
) -> GhostNeurons:
    """Let every `nn.ReLU` and `nn.ReLU6` of a model be PSwish while the fade lasts, in place.

    x sigmoid(beta x) with beta = 1 / alpha, from 1 at first up to `beta_max` at the last ghost step. ReLU6 is PSwish
    cut off at 6. Modules become subclasses of themselves, so names, hooks and `state_dict` stay; beta is a tensor of
    theirs that is neither parameter nor buffer, so a compiled model is not compiled again for every value.

    Args:
        beta_max: at least 1; the default holds every activation within 1e-4 of ReLU at the end.
        example: inputs of the model, on its device, on which one forward pass tells which ReLUs are functions, which
            cannot be replaced: they are listed in `left`. Without it they are not looked for.
        probe: inputs for which the largest change of any output by the removal is measured.

    Raises:
        BadValue: for a model without such a module or with ghost neurons already, or a beta_max below 1 or infinite.
    """
    if not 1.0 <= beta_max < inf:
        raise BadValue(f"beta_max must be at least 1 and finite, got {beta_max:g}")
    modules, left = _relus(model)
    if example is not None:
        trace = Trace(model, example)
        left |= {name or type(model).__name__: _AS_FUNCTION for name in trace.relus}
    if not modules:
        found = "; ".join(f"{name} {why}" for name, why in left.items())
        raise BadValue(
            f"ghost neurons need modules nn.ReLU or nn.ReLU6, and the model has none{f' ({found})' if found else ''}"
        )
    ghosts = GhostNeurons(model, fade, beta_max, probe)
    ghosts.done = {name: type(module).__name__ for name, module in modules.items()}
    ghosts.left = left
    ghosts._put(list(modules.values()))
    return ghosts


_AS_FUNCTION = "calls ReLU as a function, which cannot be replaced; make it an nn.ReLU"


def _relus(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The modules that can be ghosts, and those that cannot with the reason."""
    found: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    for name, module in model.named_modules():
        if type(module) in _PLAIN:
            raise BadValue(f"the model has ghost neurons already, at {name!r}; finish() those first")
        if isinstance(parents.get(id(module)), nn.TransformerEncoderLayer) and type(module) in _GHOST:
            left[name] = "is fused by nn.TransformerEncoderLayer in evaluation, which does not call it"
        elif type(module) in _GHOST:
            found[name] = module
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            left[name] = f"is a {type(module).__name__}, no plain nn.ReLU"
    return found, left


def remove_neurons_(model: nn.Module) -> None:
    """Make every ghost neuron of a model the ReLU that it was."""
    for module in model.modules():
        if type(module) in _PLAIN:
            del module.ghost_beta
            module.__class__ = _PLAIN[type(module)]
