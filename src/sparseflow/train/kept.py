"""The weights that `Sparse` keeps: which they are, and the bits that clear them."""

from __future__ import annotations

from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseflow.core import BadValue, Masks, ModelMasks, check_masks, stand_ins
from sparseflow.train.bits import active_bits, keep_
from sparseflow.train.gradient import Gradient
from sparseflow.train.state import held


class Kept:
    """One weight in masked execution.

    Args:
        name: of the weight, for messages.
        mask: bool, of the weight's shape.
    """

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self.name, self.weight = name, weight
        self.mask = mask.to(weight.device)
        self._bits = self._laid_out(self.mask)
        self.collected: Gradient | None = None
        """Takes the gradient as it is before it is masked."""

    def _laid_out(self, mask: Tensor) -> Tensor:
        # In the weight's own order of memory, else the bitwise and would jump through one of the two.
        return active_bits(torch.empty_like(self.weight, dtype=torch.bool).copy_(mask), self.weight.dtype)

    def bits(self) -> Tensor:
        """The mask as `active_bits`, made again when the model has moved to another device, precision or layout."""
        weight, bits = self.weight, self._bits
        if (
            bits.device != weight.device
            or bits.element_size() != weight.element_size()
            or bits.stride() != weight.stride()
        ):
            self._bits = bits = self._laid_out(self.mask)
        return bits

    def mask_gradient(self) -> None:
        """Set the masked entries of the gradient to 0.

        Raises:
            BadValue: for a gradient that is a sparse tensor.
        """
        gradient = self.weight.grad
        if gradient is None:
            return
        if gradient.layout is not torch.strided:
            raise BadValue(f"the gradient of {self.name} is a sparse tensor, which has no mask; use sparse=False")
        keep_(gradient, self.bits())

    def _accumulated(self) -> None:
        gradient = self.weight.grad
        if self.collected is None or gradient is None:
            self.mask_gradient()
            return
        self.collected.take_masked(gradient, self.mask)
        self.mask_gradient()
        self.collected.note(gradient)

    def hook(self) -> RemovableHandle:
        """Mask the gradient from now on as soon as a backward pass has accumulated it, for as long as this lives."""
        weight, mine = self.weight, ref(self)

        # torch's garbage collection does not see through these hooks: one that held this, and so its own weight, would
        # keep both for ever.
        def accumulated(_: Tensor) -> None:
            one = mine()
            if one is not None:
                one._accumulated()

        frozen = not weight.requires_grad
        weight.requires_grad_(True)  # torch hooks no frozen weight, but one may be unfrozen later
        handle: RemovableHandle = weight.register_post_accumulate_grad_hook(accumulated)
        weight.requires_grad_(not frozen)
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
