"""What ghost neurons and ghost skips share: they stand in the model, fade step by step and go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, mode
from sparseflow.tost.fade import Fade

Inputs = Tensor | tuple[Any, ...]
"""Of a model: one tensor, or a tuple of all its arguments."""


class Ghosts(ABC):
    """Ghosts of one kind in one model. Call `step` after every optimiser step, as a learning-rate scheduler's.

    A copy or pickle of this object brings its own model with its own ghosts.

    Attributes:
        model: which has the ghosts; wrap it in DDP or `torch.compile` after they were made.
        fade: optimiser step -> alpha.
        steps: optimiser steps taken, so `fade(steps)` is the alpha of the next.
        finished: whether the model is the plain one again.
        done: name of a module -> what was done there.
        left: name of a module -> why it was left as it is.
        largest_change: of any output for `probe`, absolute, by the removal, in evaluation mode; None before it, and
            without a probe.
    """

    kind: str
    done: dict[str, str]
    left: dict[str, str]

    def __init__(self, model: nn.Module, fade: Fade, probe: Inputs | None) -> None:
        self.model, self.fade = model, fade
        self.steps = 0
        self.finished = False
        self.largest_change: float | None = None
        self._probe = probe

    @abstractmethod
    def _set(self, alpha: float) -> None: ...

    @abstractmethod
    def _remove(self) -> None: ...

    @property
    def alpha(self) -> float:
        """Of the next forward pass; 0 without ghosts."""
        return 0.0 if self.finished else self.fade(self.steps)

    def step(self) -> None:
        """An optimiser step was taken: the ghosts fade, and finish at their end."""
        self.steps += 1
        self._settle()

    def _settle(self) -> None:
        if self.finished:
            return
        if self.fade.over(self.steps):
            self.finish()
        else:
            self._set(self.alpha)

    def finish(self) -> nn.Module:
        """Give the original network back: its modules, their types and names, its `state_dict`."""
        if not self.finished:
            before = None if self._probe is None else _outputs(self.model, self._probe)
            self._remove()
            self.finished = True
            if before is not None and self._probe is not None:
                after = _outputs(self.model, self._probe)
                self.largest_change = float((after - before).abs().max())
            self._probe = None
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """How far the ghosts have faded; the model's own `state_dict` has the plain network's names meanwhile."""
        return {
            "kind": self.kind,
            "steps": self.steps,
            "alpha": self.alpha,
            "finished": self.finished,
            "largest_change": self.largest_change,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state_dict` was made; ghosts that were gone then go.

        Load it before the model's state where ghosts have weights of their own.

        Raises:
            BadValue: for the state of another kind or of another fade, or if these ghosts are gone and the state's
                are not.
        """
        if state.keys() != self.state_dict().keys() or state["kind"] != self.kind:
            raise BadValue(f"not a state of {self.kind}: {', '.join(map(str, state)) or 'nothing'}")
        steps, finished = int(state["steps"]), bool(state["finished"])
        if self.finished and not finished:
            raise BadValue(f"the {self.kind} are gone from this model; make them anew on a plain one and load then")
        if not finished and state["alpha"] != self.fade(steps):
            raise BadValue(
                f"the state is of another fade: alpha {state['alpha']:g} at step {steps:,}, here {self.fade(steps):g}"
            )
        self.steps = steps
        if finished:
            self._probe = None
            self.finish()
            self.largest_change = state["largest_change"]
        self._settle()

    def __repr__(self) -> str:
        if self.finished:
            return f"{type(self).__name__}(finished; {self.steps:,} steps)"
        kept = "for ever" if self.fade.end is None else f"until step {self.fade.end:,}"
        return f"{type(self).__name__}({len(self.done)} places {kept}; alpha {self.alpha:.4g} at step {self.steps:,})"


def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad(), mode(model, training=False):
        out = call(model, inputs)
    if not isinstance(out, Tensor):
        raise BadValue(f"the change by the removal is of a model that returns one tensor, got {type(out).__name__}")
    return out


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output for its inputs."""
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def scalar() -> Tensor:
    """A tensor for a value that changes from step to step.

    On the CPU it multiplies tensors of any device and precision without changing theirs. It is no buffer: DDP cannot
    bear it when a model's last buffer disappears, and a cast of the model would round it.
    """
    return torch.ones((), dtype=torch.float64)
