"""The compiled kernels, where the installation has them."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from sparseflow.core import BadValue

DTYPES = (torch.float32, torch.float64)


@cache
def available() -> bool:
    """Whether the C kernels were compiled when sparseflow was installed; the first time not, a warning says so."""
    try:
        linear(), conv(), norm()
    except ImportError:
        warnings.warn(
            "sparseflow was installed without its C kernels (no C compiler was found), so compact layers use torch's "
            "CSR products, about four times slower; install a C compiler and reinstall sparseflow to have them",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def kernels() -> str:
    """The instruction set of the C kernels in use, "none" without them; part of what a run's bits depend on."""
    return str(linear().isa()) if available() else "none"


def linear() -> ModuleType:
    """Products of linear layers, and `turn`."""
    return import_module("sparseflow.sparse._linear")


def conv() -> ModuleType:
    """Products of convolutions."""
    return import_module("sparseflow.sparse._conv")


def norm() -> ModuleType:
    """Batch normalisation."""
    return import_module("sparseflow.sparse._norm")


def buffer(tensor: Tensor) -> tuple[int, int]:
    """(address, elements), as the C side takes and checks a contiguous tensor."""
    return tensor.data_ptr(), tensor.numel()


def checked(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise unless the C side may read the tensor.

    Raises:
        BadValue: naming the tensor, what it is and what it must be.
    """
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not tensor.is_contiguous():
        raise BadValue(f"{name} must be a contiguous tensor on the CPU, got {tensor.layout} on {tensor.device}")
    if tensor.dtype is not dtype or dtype not in DTYPES:
        raise BadValue(f"{name} must be {dtype}, one of float32 and float64; got {tensor.dtype}")
    if tuple(tensor.shape) != shape:
        raise BadValue(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.is_neg() or tensor.is_conj():
        raise BadValue(f"{name} is a lazily negated view; pass name.resolve_neg()")
