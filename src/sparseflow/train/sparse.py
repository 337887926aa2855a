"""`Sparse` keeps masks true while any training loop runs, without a wrapper around the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseflow.core import BadValue, Masks, ModelMasks, check_masks, stand_ins
from sparseflow.train.bits import active_bits, keep_
from sparseflow.train.state import restore_initial_state


class Sparse:
    """Masked execution: weights outside of the masks stay exactly 0 under any elementwise torch optimiser.

    Gradients are masked as they are accumulated (so clipping, the inf check of GradScaler and closures see masked ones;
    `torch.autograd.grad` still gives all). After each optimiser step masked weights are 0 again and their optimiser
    state is what the optimiser starts with. Values are cleared, not multiplied: NaN * 0 is NaN. A step that GradScaler
    skips runs no hook and is not counted.

    Weights that a compact layer stands for need no keeping: their inactive entries do not exist.

    Args:
        model: any module; its masked weights are set to 0 where the mask is False.
        masks: weight name -> bool mask.
        optimizer: the optimiser that updates the model.

    Raises:
        BadValue: for a mask of another shape or dtype, or for no weight of the model; for a compact layer whose
            pattern is not its mask.

    The hooks do not survive a bare `copy.deepcopy` or pickle of the model.
    """

    def __init__(self, model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> None:
        check_masks(model, masks)
        self.model = model
        self.optimizer = optimizer
        self.steps = 0
        """Optimiser steps taken since this object was made."""
        self._kept: list[tuple[nn.Parameter, Tensor]] = []
        self._handles: list[RemovableHandle] = []
        compact, kept = stand_ins(model), {}
        for name in masks:
            if name in compact:
                same = isinstance(masks, ModelMasks) and masks.is_of(name, compact[name])
                if not same and not compact[name].has_mask(masks[name]):
                    raise BadValue(f"{name}: the compact layer was built with another mask")
                continue
            weight = model.get_parameter(name)
            kept[name] = masks[name].to(weight.device)
            bits = active_bits(kept[name], weight.dtype)
            self._kept.append((weight, bits))
            if weight.requires_grad:  # a frozen weight has no gradient to mask
                self._handles.append(weight.register_post_accumulate_grad_hook(_mask_gradient(bits)))
        self.masks: Masks = ModelMasks(model, kept, masks)
        self._handles.append(optimizer.register_step_post_hook(self._after_step))
        self.enforce()

    @torch.no_grad()
    def enforce(self) -> None:
        """Set masked weights to 0 and their optimiser state to its initial value."""
        for weight, bits in self._kept:
            keep_(weight, bits)
            restore_initial_state(self.optimizer, weight, bits)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.steps += 1
        self.enforce()

    def remove(self) -> nn.Module:
        """Take all hooks away and return the model, an ordinary one with exact zeros."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._kept.clear()
        return self.model


def _mask_gradient(bits: Tensor) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            keep_(parameter.grad, bits)

    return hook
