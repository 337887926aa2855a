"""What `Sparse` needs to follow a rule: the gradient it looks at, the scene it is shown, the step that is undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from sparseflow.core import StandsForWeight
from sparseflow.train.gradient import Gradient
from sparseflow.train.kept import Kept
from sparseflow.train.rules import Change, LayerScene, Rule, Scene
from sparseflow.train.state import move_state, snapshot

Layers = Mapping[str, Kept | StandsForWeight]
"""Weight name -> its masked layer or its compact one."""

Watch = Callable[[str, Mapping[str, Change]], None]


class Follower:
    """Shows a rule what it asks for, at the steps that it asks for."""

    def __init__(self, rule: Rule, optimizer: torch.optim.Optimizer, first_rate: float | None = None) -> None:
        self.rule, self._optimizer = rule, optimizer
        self.first_rate = float(optimizer.param_groups[0]["lr"]) if first_rate is None else first_rate
        self._gradients: dict[str, Gradient] = {}
        self._watching = ExitStack()
        self._undo: Callable[[], None] | None = None

    def announce(self, step: int, layers: Callable[[], Layers]) -> None:
        """Before the forward pass of the optimiser step of this number: watch for what the rule will need.

        Most steps need nothing, and looking for the layers goes through the whole model.
        """
        self.forget()
        if not (self.rule.due(step) and self.rule.needs_gradient):
            return
        for name, layer in layers().items():
            gradient = self._gradients[name] = Gradient()
            if isinstance(layer, Kept):
                layer.gradient.collected = gradient
                self._watching.callback(setattr, layer.gradient, "collected", None)
            else:
                tap = self._watching.enter_context(layer.tapped())
                hook = layer.values.register_post_accumulate_grad_hook(_from_tap(tap, gradient))
                self._watching.callback(hook.remove)

    def forget(self) -> None:
        """Watch no more; what was collected is gone."""
        self._watching.close()
        self._gradients, self._undo = {}, None

    def before_step(self, step: int) -> None:
        """At the beginning of the optimiser step of this number."""
        if self.rule.due(step) and self.rule.replaces_step:
            self._undo = snapshot(self._optimizer)

    def undo(self) -> None:
        """Take the optimiser step back, where the change of masks replaces it."""
        if self._undo is not None:
            self._undo()

    def changes(self, step: int, layers: Layers) -> Mapping[str, Change]:
        """What the rule asks for after the optimiser step of this number."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        scenes = {name: self._scene(name, layer) for name, layer in layers.items()}
        return self.rule.changes(Scene(step, rate / self.first_rate if self.first_rate else 1.0, scenes))

    def _scene(self, name: str, layer: Kept | StandsForWeight) -> LayerScene:
        if isinstance(layer, Kept):
            shape, places = layer.weight.shape, places_of(layer)
            values = layer.weight.detach().flatten()[places]
        else:
            shape = layer.weight_shape
            order, places = layer.row_major()
            values = layer.values.detach()[order]
        if not self.rule.needs_gradient:
            return LayerScene(shape, places, values)
        collected = self._gradients[name].reduced() if name in self._gradients else None
        # A weight that the loss does not reach has a gradient of 0.
        return LayerScene(shape, places, values, values.new_zeros(shape) if collected is None else collected)


def _from_tap(tap: Tensor, gradient: Gradient) -> Callable[[Tensor], None]:
    def hook(values: Tensor) -> None:
        assert values.grad is not None
        if tap.grad is not None:
            gradient.add(values.grad, tap.grad)
            tap.grad = None
        gradient.note(values.grad)

    return hook


def carrier(layer: Kept | StandsForWeight) -> nn.Parameter:
    """The parameter that holds the layer's weights."""
    return layer.weight if isinstance(layer, Kept) else layer.values


def places_of(layer: Kept | StandsForWeight) -> Tensor:
    """Index of each active weight in the flattened dense weight, rising."""
    return layer.mask.flatten().nonzero().squeeze(1) if isinstance(layer, Kept) else layer.row_major()[1]


def difference(layer: Kept | StandsForWeight, mask: Tensor) -> Change:
    """What makes the layer's mask this one."""
    places = places_of(layer)
    wanted = mask.to(places.device).flatten().clone()
    drop = (~wanted[places]).nonzero().squeeze(1)
    wanted[places] = False
    return Change(drop, wanted.nonzero().squeeze(1))


def starts_again(layer: Kept | StandsForWeight, change: Change) -> bool:
    """Whether a masked layer grows again what it drops, which must be cleared in between."""
    if not isinstance(layer, Kept) or not len(change.drop):
        return False
    return bool(torch.isin(change.grow, places_of(layer)[change.drop]).any())


def without_and_with(mask: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    """A mask without what is dropped, and then with what is grown."""
    flat = mask.flatten()
    dropped = flat.clone()
    dropped[flat.nonzero().squeeze(1)[change.drop]] = False
    grown = dropped.clone()
    grown[change.grow] = True
    return dropped.view(mask.shape), grown.view(mask.shape)


def rewire_values(layer: StandsForWeight, change: Change, optimizer: torch.optim.Optimizer) -> None:
    """Change the pattern of a compact layer, its optimiser's state with it."""
    order, _ = layer.row_major()
    before = layer.values.numel()
    source = layer.rewire_(order[change.drop], change.grow)
    move_state(optimizer, layer.values, source, before)
