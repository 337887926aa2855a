"""What multiplies: a kernel serves one structure, and operators find it by its number."""

from __future__ import annotations

from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from sparseflow.core import SparseflowError

Shape = tuple[int, ...]
Pair = tuple[int, int]


class Kernel(Protocol):
    """The products of one sparse weight W, whose values come in the order of its `Structure`.

    Activations have the features first and the batch last: (features, batch), or (channels, height, width, batch).
    All are contiguous and of the values' dtype, float32 or float64, and on their device.
    """

    def forward(self, values: Tensor, x: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        """W x (+ bias), of the given shape."""
        ...

    def backward(
        self, g: Tensor, shape: Shape, values: Tensor | None, x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """(W^T g of the given shape where `values` are given, gradient of the values where `x` is)."""
        ...


_kernels: WeakValueDictionary[int, Kernel] = WeakValueDictionary()
_numbers = count(1)


def register(kernel: Kernel) -> Tensor:
    """A handle, which operators take: an int64 scalar that names the kernel as long as its layer keeps it alive.

    A tensor and not a number, so that a compiled graph sees an input instead of a constant, and autograd notices a
    structure that changed between forward and backward.
    """
    number = next(_numbers)
    _kernels[number] = kernel
    return torch.tensor(number)


def find(handle: Tensor) -> Kernel:
    kernel = _kernels.get(int(handle))
    if kernel is None:
        raise SparseflowError(
            "this sparse layer's structure is gone: it belonged to another process or a deleted layer"
        )
    return kernel
