"""The weights that `Sparse` keeps: which they are, and the bits that clear them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from sparseflow.core import BadValue, Masks, ModelMasks, check_masks, stand_ins
from sparseflow.train.bits import active_bits, keep_
from sparseflow.train.gradient import Gradient
from sparseflow.train.state import held

_HOOKS = WeakTensorKeyDictionary()
"""Weight -> the hook that masks its gradient."""


class MaskedGradient:
    """What becomes of a weight's gradient in masked execution.

    It does not hold the weight: torch's garbage collection does not see through a weight's hooks, so a hook that held
    its own weight would keep it for ever.

    Args:
        name: of the weight, for messages.
        mask: bool, of the weight's shape.
    """

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self._name, self.mask = name, mask.to(weight.device)
        self._bits = self._laid_out(weight)
        self.collected: Gradient | None = None
        """Takes the gradient as it is before it is masked."""

    def _laid_out(self, weight: Tensor) -> Tensor:
        # In the weight's own order of memory, else the bitwise and would jump through one of the two.
        return active_bits(torch.empty_like(weight, dtype=torch.bool).copy_(self.mask), weight.dtype)

    def bits(self, weight: Tensor) -> Tensor:
        """The mask as `active_bits`, made again when the model has moved to another device, precision or layout."""
        bits = self._bits
        if (
            bits.device != weight.device
            or bits.element_size() != weight.element_size()
            or bits.stride() != weight.stride()
        ):
            self._bits = bits = self._laid_out(weight)
        return bits

    def clear(self, weight: Tensor) -> None:
        """Set the masked entries of the weight's gradient to 0.

        Raises:
            BadValue: for a gradient that is a sparse tensor.
        """
        gradient = weight.grad
        if gradient is None:
            return
        if gradient.layout is not torch.strided:
            raise BadValue(f"the gradient of {self._name} is a sparse tensor, which has no mask; use sparse=False")
        keep_(gradient, self.bits(weight))

    def accumulated(self, weight: Tensor) -> None:
        """The hook: a backward pass has added to the weight's gradient."""
        gradient = weight.grad
        if self.collected is None or gradient is None:
            self.clear(weight)
            return
        self.collected.take_masked(gradient, self.mask)
        self.clear(weight)
        self.collected.note(gradient)


class Kept:
    """One weight in masked execution, its mask bool and of its shape."""

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self.name, self.weight = name, weight
        self.gradient = MaskedGradient(name, weight, mask)

    @property
    def mask(self) -> Tensor:
        return self.gradient.mask

    def bits(self) -> Tensor:
        """The mask as `active_bits`, as the weight lies in memory now."""
        return self.gradient.bits(self.weight)

    def mask_gradient(self) -> None:
        """Set the masked entries of the gradient to 0; raises as `MaskedGradient.clear`."""
        self.gradient.clear(self.weight)

    def hook(self) -> RemovableHandle:
        """Mask the gradient from now on, by this mask alone, as soon as a backward pass has accumulated it."""
        weight = self.weight
        if weight in _HOOKS:
            _HOOKS[weight].remove()
        frozen = not weight.requires_grad
        weight.requires_grad_(True)  # torch hooks no frozen weight, but one may be unfrozen later
        handle: RemovableHandle = weight.register_post_accumulate_grad_hook(self.gradient.accumulated)
        weight.requires_grad_(not frozen)
        _HOOKS[weight] = handle
        return handle


def kept_weights(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> dict[str, Kept]:
    """Weight name -> what is kept; one object under all names of a shared weight, none for a compact layer.

    Raises:
        BadValue: see `Sparse`.
    """
    check_masks(model, masks)
    compact, updated = stand_ins(model), held(optimizer)
    found: dict[str, Kept] = {}
    shared: dict[int, Kept] = {}
    for name in masks:
        if name in compact:
            layer = compact[name]
            same = isinstance(masks, ModelMasks) and masks.is_of(name, layer)
            if not same and not layer.has_mask(masks[name]):
                raise BadValue(f"{name}: the compact layer was built with another mask")
            weight = layer.values
        else:
            weight, mask = model.get_parameter(name), masks[name]
            one = shared.get(id(weight))
            if one is None:
                one = shared[id(weight)] = Kept(name, weight, mask)
            elif not torch.equal(one.mask, mask.to(one.mask.device)):
                raise BadValue(f"{one.name} and {name} are one shared weight with two different masks")
            found[name] = one
        if weight.requires_grad and id(weight) not in updated:
            when = (
                ": make it after compact()" if name in compact else "; give its mask to a Sparse of the one that does"
            )
            raise BadValue(f"the optimizer does not hold {name}{when}, or freeze the weight")
    return found
