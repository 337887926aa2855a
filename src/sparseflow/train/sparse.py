"""`Sparse` keeps masks true while any training loop runs, without a wrapper around the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseflow.core import (
    BadValue,
    Masks,
    ModelMasks,
    StandsForWeight,
    UnknownName,
    active_counts,
    check_masks,
    stand_ins,
    weight_shapes,
    weight_values,
)
from sparseflow.train.bits import keep_
from sparseflow.train.follow import (
    Follower,
    Layers,
    Watch,
    carrier,
    difference,
    rewire_values,
    starts_again,
    without_and_with,
)
from sparseflow.train.kept import Kept, kept_weights
from sparseflow.train.rules import Change, Rule
from sparseflow.train.state import check_compact, elementwise, restore_initial_state, unpickled_attributes

S = TypeVar("S", bound="Sparse")


class Sparse:
    """Masked execution: weights outside of the masks stay exactly 0 under any torch optimiser.

    Gradients are masked as they are accumulated (so clipping, the inf check of GradScaler and closures see masked ones;
    `torch.autograd.grad` still gives all). After each optimiser step masked weights are 0 again and their elementwise
    optimiser state is what the optimiser starts with. Values are cleared, not multiplied: NaN * 0 is NaN.

    Weights that a compact layer stands for need no keeping: their inactive entries do not exist.

    A copy or pickle of this object brings its own model, optimiser and hooks; one of the bare model has no hooks.
    As a context manager it takes its hooks away at the end. The optimiser's hooks hold it. Those of the model hold the
    masks alone; the latest one made of a weight masks its gradient.

    Args:
        model: any module (the plain one, where DDP or `torch.compile` wraps it); its masked weights are set to 0.
        masks: weight name -> bool mask. One mask holds for a weight that the model has under several names.
        optimizer: the optimiser that updates the masked weights; frozen ones need none.
        rule: changes masks along the training, such as `Rewire` or `GradualMagnitude`.
        steps: optimiser steps that were taken before.

    Attributes:
        masks: weight name -> bool mask, on the device that the weight was on.
        steps: optimiser steps taken; those that GradScaler skipped are not counted.
        changes: how often masks have changed.
        explored: weight name -> bool, flattened: weights that have been active at some time; with a rule only.
        watch: called with "before" and no changes, then with "after" and what changed, whenever the rule changes masks.

    Raises:
        BadValue: for a mask of another shape or dtype, or for no weight of the model; for two different masks of one
            shared weight; for a weight that the optimiser does not hold; for a compact layer whose pattern is not its
            mask, or whose values an optimiser of matrices would get.
    """

    masks: Masks

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        optimizer: torch.optim.Optimizer,
        rule: Rule | None = None,
        *,
        steps: int = 0,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.rule = rule
        self.steps = steps
        self.changes = 0
        self.explored: dict[str, Tensor] = {}
        self.watch: Watch | None = None
        self._kept: dict[str, Kept] = {}
        self._gradient_hooks: list[RemovableHandle] = []
        check_compact(model, optimizer)
        self._keep(masks)
        self._step_hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._mixes = not elementwise(optimizer)
        """Whether a masked entry of a gradient that was set by hand would reach active weights."""
        self._follower = None if rule is None else Follower(rule, optimizer)
        self.enforce()
        if self._follower is not None:
            self.explored = {name: self.masks[name].flatten().clone() for name in self._trained()}
            self._follow(self._follower)

    def _go_on_with(self, rule: Rule, first_rate: float, explored: dict[str, Tensor]) -> None:
        """Follow a rule from here on that was followed before."""
        self.rule, self.explored = rule, explored
        self._follower = Follower(rule, self.optimizer, first_rate)
        self._follower.announce(self.steps + 1, self._trained)

    def _keep(self, masks: Masks) -> None:
        """Take these masks instead of the present ones."""
        kept = kept_weights(self.model, masks, self.optimizer)
        for handle in self._gradient_hooks:
            handle.remove()
        # A shared weight goes by its first name.
        self._first_names = {name: one.name for name, one in kept.items()}
        self._kept = {one.name: one for one in kept.values()}
        self._gradient_hooks = [one.hook() for one in self._kept.values()]
        self.masks = ModelMasks(self.model, {name: one.mask for name, one in kept.items()}, masks)

    @torch.no_grad()
    def enforce(self) -> None:
        """Set masked weights to 0 and their optimiser state to its initial value."""
        for one in self._kept.values():
            bits = one.bits()
            keep_(one.weight, bits)
            restore_initial_state(self.optimizer, one.weight, bits)

    def mask_gradients(self) -> None:
        """Set the masked entries of `.grad` to 0, where a gradient did not come through `backward`.

        Needed before clipping if a program writes `.grad` itself, or if a communication hook of DDP changes gradients
        after they were accumulated (such as PowerSGD's).
        """
        for one in self._kept.values():
            one.mask_gradient()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._mixes:
            self.mask_gradients()
        if self._follower is not None:
            self._follower.before_step(self.steps + 1)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # A fused optimiser is called by GradScaler even for a step that it then skips itself.
        skipped = getattr(optimizer, "found_inf", None)
        taken = skipped is None or not bool(skipped)
        self.steps += taken
        self.enforce()
        if taken and self._follower is not None:
            self._follow(self._follower)

    def _follow(self, follower: Follower) -> None:
        """Change masks if the rule says so, and watch for what it will need after the next step."""
        if follower.rule.due(self.steps):
            layers = self._trained()
            follower.undo()
            if self.watch is not None:
                self.watch("before", {})
            changes = follower.changes(self.steps, layers)
            follower.forget()
            self._carry_out(changes, layers)
            if self.watch is not None:
                self.watch("after", changes)
        follower.announce(self.steps + 1, self._trained)

    def _layers(self) -> dict[str, Kept | StandsForWeight]:
        """Weight name -> what carries it, for every weight that has a mask, each once."""
        compact = stand_ins(self.model)
        return {
            name: compact[name] if name in compact else self._kept[name]
            for name in self.masks
            if name in compact or name in self._kept
        }

    def _trained(self) -> dict[str, Kept | StandsForWeight]:
        return {name: layer for name, layer in self._layers().items() if carrier(layer).requires_grad}

    def change(self, masks: Masks) -> None:
        """Take new masks for some of the weights that have one.

        A weight that is no longer active becomes 0 with the optimiser's initial state; one that newly is starts there.

        Raises:
            UnknownName: for a mask of a weight that has none.
            BadValue: for a mask of another shape or dtype.
        """
        check_masks(self.model, masks)
        layers = self._layers()
        if strange := [name for name in masks if name not in layers]:
            raise UnknownName("masked weight", strange[0], layers)
        self._carry_out({name: difference(layers[name], mask) for name, mask in masks.items()}, layers)

    def _carry_out(self, changes: Mapping[str, Change], layers: Layers) -> None:
        between, after = {}, {}
        for name, change in changes.items():
            layer = layers[name]
            if isinstance(layer, Kept):
                between[name], after[name] = without_and_with(layer.mask, change)
            else:
                rewire_values(layer, change, self.optimizer)
            if name in self.explored:
                self.explored[name][change.grow] = True
        if any(starts_again(layers[name], change) for name, change in changes.items()):
            self._replace(between)
        self._replace(after)
        self.changes += 1

    def _replace(self, masks: Masks) -> None:
        """Take new masks of masked layers, named by their first names, and clear what is no longer active."""
        every = {name: masks.get(first, self._kept[first].mask) for name, first in self._first_names.items()}
        self._keep(ModelMasks(self.model, every, self.masks))
        self.enforce()

    def explored_share(self) -> float:
        """The part of all weights of the rewired layers that have been active at some time, in [0, 1]; NaN without any.

        (The in-time over-parameterisation rate of Liu et al. 2021, arXiv:2102.02887.)
        """
        total = sum(seen.numel() for seen in self.explored.values())
        return sum(int(seen.count_nonzero()) for seen in self.explored.values()) / total if total else float("nan")

    def density(self) -> float:
        """The fraction of active weights among those that have a mask, in [0, 1]; NaN without masks."""
        active, total = self._counts()
        return active / total if total else float("nan")

    def densities(self) -> dict[str, float]:
        """Weight name -> the fraction of it that is active, in [0, 1], of those that have a mask."""
        counts, shapes = active_counts(self.model, self.masks), weight_shapes(self.model)
        return {name: counts[name] / shapes[name].numel() for name in self.masks}

    def _counts(self) -> tuple[int, int]:
        """(active, all) weights that have a mask, each shared one counted once."""
        counts, shapes, carriers = (
            active_counts(self.model, self.masks),
            weight_shapes(self.model),
            weight_values(self.model),
        )
        names = {id(carriers[name]): name for name in self.masks}.values()
        return sum(counts[name] for name in names), sum(shapes[name].numel() for name in names)

    def __repr__(self) -> str:
        active, total = self._counts()
        compact = len(stand_ins(self.model).keys() & set(self.masks))
        layers = f"{len(self.masks)} weights" + (f", {compact} of them compact" if compact else "")
        taken = f"{type(self.optimizer).__name__}, {self.steps:,} steps"
        return f"Sparse({layers}; {active:,} of {total:,} active, density {self.density():.4g}; {taken})"

    def state_dict(self) -> dict[str, Any]:
        """`masks`, `steps` and `explored`; the tensors are this object's own, as in torch's state_dicts."""
        return {"masks": dict(self.masks), "steps": self.steps, "explored": dict(self.explored)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the content of a `state_dict`, after those of model and optimiser were loaded.

        Where compact layers are rewired it comes first: a model takes weights only where its layers have them.

        Raises:
            BadValue: for anything else, for masks of other weights, and as the constructor; nothing is changed then.
        """
        if state.keys() - {"explored"} != {"masks", "steps"}:
            raise BadValue(f"a state of Sparse has masks and steps, got {', '.join(map(str, state)) or 'nothing'}")
        masks: Masks = state["masks"]
        if other := masks.keys() ^ self.masks.keys():
            raise BadValue(f"the state has masks of other weights: {', '.join(sorted(other))} on one side only")
        kept_weights(self.model, {name: masks[name] for name in self._first_names}, self.optimizer)  # or raises
        self.change({name: masks[name] for name in self._layers()})
        self.steps, self.explored = int(state["steps"]), dict(state.get("explored", {}))
        if self._follower is not None:
            self._follower.announce(self.steps + 1, self._trained)

    def remove(self) -> nn.Module:
        """Take all hooks away and return the model, an ordinary one with exact zeros."""
        for handle in [*self._gradient_hooks, *self._step_hooks]:
            handle.remove()
        self._gradient_hooks.clear()
        self._step_hooks.clear()
        self._kept.clear()
        if self._follower is not None:
            self._follower.forget()
        return self.model

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        # Serves copy.deepcopy as well, whose memo makes the copied optimiser hold the copied model's parameters.
        compact = stand_ins(self.model)
        kept = {name: self.masks[name] for name in self.masks if name not in compact}
        attributes, removed = unpickled_attributes(self.optimizer), not self._step_hooks
        parts = self.model, kept, list(self.masks), self.optimizer, attributes, self.steps, removed
        follower = self._follower
        following = None if follower is None else (follower.rule, follower.first_rate)
        return _rebuilt, (type(self), *parts, following, self.explored)


def _rebuilt(
    kind: type[S],
    model: nn.Module,
    kept: Masks,
    names: list[str],
    optimizer: torch.optim.Optimizer,
    attributes: dict[str, Any],
    steps: int,
    removed: bool,
    following: tuple[Rule, float] | None,
    explored: dict[str, Tensor],
) -> S:
    vars(optimizer).update(attributes)
    sparse = kind(model, ModelMasks(model, kept, names), optimizer, steps=steps)
    if following is not None:  # only now: what was due at this step has been done
        sparse._go_on_with(*following, explored)
    if removed:
        sparse.remove()
    return sparse
