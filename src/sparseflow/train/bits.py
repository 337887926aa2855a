"""Zeros where a mask is off, by integer arithmetic on the bits of the numbers.

`masked_fill_` branches on every element: over 621,000 weights with a random mask it takes 1.7 ms, a bitwise and 0.05.
Multiplying by the mask would keep NaN (0 * NaN).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseflow.core import BadValue

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def active_bits(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """All bits set where the mask is True, none elsewhere; an integer tensor as wide as `dtype`.

    Raises:
        BadValue: for numbers of other than 2, 4 or 8 bytes.
    """
    if dtype.itemsize not in _INTEGER:
        raise BadValue(f"weights of dtype {dtype} cannot be masked; theirs must have 2, 4 or 8 bytes")
    return mask.to(_INTEGER[dtype.itemsize]).neg_()


def keep_(tensor: Tensor, bits: Tensor) -> None:
    """Set `tensor` to +0 where `bits` (of `active_bits`) has none, in place."""
    if tensor.requires_grad and torch.is_grad_enabled():
        tensor.masked_fill_(bits == 0, 0.0)  # a gradient that is itself to be differentiated
    elif tensor.element_size() == bits.element_size():
        tensor.detach().view(bits.dtype).bitwise_and_(bits)
    else:
        tensor.masked_fill_(bits == 0, 0.0)
