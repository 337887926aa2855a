"""`Sparse` keeps masks true while any training loop runs, without a wrapper around the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sparseflow.core import BadValue, Masks, ModelMasks, active_counts, stand_ins, weight_shapes, weight_values
from sparseflow.train.bits import keep_
from sparseflow.train.kept import Kept, kept_weights
from sparseflow.train.rules import Rule, Scene
from sparseflow.train.state import check_compact, elementwise, restore_initial_state, unpickled_attributes

S = TypeVar("S", bound="Sparse")


class Sparse:
    """Masked execution: weights outside of the masks stay exactly 0 under any torch optimiser.

    Gradients are masked as they are accumulated (so clipping, the inf check of GradScaler and closures see masked ones;
    `torch.autograd.grad` still gives all). After each optimiser step masked weights are 0 again and their elementwise
    optimiser state is what the optimiser starts with. Values are cleared, not multiplied: NaN * 0 is NaN.

    Weights that a compact layer stands for need no keeping: their inactive entries do not exist.

    A copy or pickle of this object brings its own model, optimiser and hooks; one of the bare model has no hooks.
    As a context manager it takes its hooks away at the end.

    Args:
        model: any module (the plain one, where DDP or `torch.compile` wraps it); its masked weights are set to 0.
        masks: weight name -> bool mask. One mask holds for a weight that the model has under several names.
        optimizer: the optimiser that updates the masked weights; frozen ones need none.
        rule: changes masks along the training, such as `GradualMagnitude`.
        steps: optimiser steps that were taken before.

    Attributes:
        masks: weight name -> bool mask, on the device that the weight was on.
        steps: optimiser steps taken; those that GradScaler skipped are not counted.
        changes: how often the rule has changed masks.

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
        self._kept: list[Kept] = []
        self._gradient_hooks: list[RemovableHandle] = []
        check_compact(model, optimizer)
        self._keep(masks)
        self._step_hooks = [optimizer.register_step_post_hook(self._after_step)]
        if not elementwise(optimizer):  # where a masked entry of a gradient set by hand would reach active weights
            self._step_hooks.append(optimizer.register_step_pre_hook(lambda *_: self.mask_gradients()))
        self.changes = 0
        self.enforce()
        self._follow_rule()

    def _keep(self, masks: Masks) -> None:
        """Take these masks instead of the present ones."""
        kept = kept_weights(self.model, masks, self.optimizer)
        for handle in self._gradient_hooks:
            handle.remove()
        self._kept = list({id(one): one for one in kept.values()}.values())
        self._gradient_hooks = [one.hook() for one in self._kept]
        self.masks = ModelMasks(self.model, {name: one.mask for name, one in kept.items()}, masks)

    @torch.no_grad()
    def enforce(self) -> None:
        """Set masked weights to 0 and their optimiser state to its initial value."""
        for one in self._kept:
            bits = one.bits()
            keep_(one.weight, bits)
            restore_initial_state(self.optimizer, one.weight, bits)

    def mask_gradients(self) -> None:
        """Set the masked entries of `.grad` to 0, where a gradient did not come through `backward`.

        Needed before clipping if a program writes `.grad` itself, or if a communication hook of DDP changes gradients
        after they were accumulated (such as PowerSGD's).
        """
        for one in self._kept:
            one.mask_gradient()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # A fused optimiser is called by GradScaler even for a step that it then skips itself.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is None or not bool(skipped):
            self.steps += 1
            self.enforce()
            self._follow_rule()
        else:
            self.enforce()

    def _follow_rule(self) -> None:
        if self.rule is None or not self.rule.due(self.steps):
            return
        compact = stand_ins(self.model)
        masks = {name: self.masks[name] for name in self.masks if name not in compact}
        weights = {name: self.model.get_parameter(name).detach() for name in masks}
        self.change(self.rule.masks(Scene(self.steps, weights, masks)))

    def change(self, masks: Masks) -> None:
        """Take new masks for some of the weights that have one.

        A weight that is no longer active becomes 0 with the optimiser's initial state; one that newly is starts there.

        Raises:
            BadValue: as the constructor.
        """
        self._keep({name: masks.get(name, mask) for name, mask in self.masks.items()})
        self.changes += 1
        self.enforce()

    def density(self) -> float:
        """The fraction of active weights among those that have a mask, in [0, 1]; NaN without masks."""
        active, total = self._counts()
        return active / total if total else float("nan")

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
        """`masks` and `steps`; the tensors are this object's own, as in torch's state_dicts."""
        return {"masks": dict(self.masks), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the masks and step count of a `state_dict`, after those of model and optimiser were loaded.

        Raises:
            BadValue: for anything else, for masks of other weights, and as the constructor; nothing is changed then.
        """
        if state.keys() != {"masks", "steps"}:
            raise BadValue(f"a state of Sparse has masks and steps, got {', '.join(map(str, state)) or 'nothing'}")
        masks: Masks = state["masks"]
        if other := masks.keys() ^ self.masks.keys():
            raise BadValue(f"the state has masks of other weights: {', '.join(sorted(other))} on one side only")
        self._keep(masks)
        self.steps = int(state["steps"])
        self.enforce()

    def remove(self) -> nn.Module:
        """Take all hooks away and return the model, an ordinary one with exact zeros."""
        for handle in [*self._gradient_hooks, *self._step_hooks]:
            handle.remove()
        self._gradient_hooks.clear()
        self._step_hooks.clear()
        self._kept.clear()
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
        parts = self.model, kept, list(self.masks), self.optimizer, attributes, self.rule, self.steps, removed
        return _rebuilt, (type(self), *parts)


def _rebuilt(
    kind: type[S],
    model: nn.Module,
    kept: Masks,
    names: list[str],
    optimizer: torch.optim.Optimizer,
    attributes: dict[str, Any],
    rule: Rule | None,
    steps: int,
    removed: bool,
) -> S:
    vars(optimizer).update(attributes)
    sparse = kind(model, ModelMasks(model, kept, names), optimizer, steps=steps)
    sparse.rule = rule  # only now: what was due at this step has been done
    if removed:
        sparse.remove()
    return sparse
