"""sparseflow: train, compare and understand sparse neural networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseflow import autodiff, core, data, init, masks, measure, models, sparse, stats, study, tost, train
    from sparseflow.sparse import compact
    from sparseflow.train import Sparse

__version__ = "0.1.0.dev0"

__all__ = [
    "Sparse",
    "autodiff",
    "compact",
    "core",
    "data",
    "init",
    "masks",
    "measure",
    "models",
    "sparse",
    "stats",
    "study",
    "tost",
    "train",
]

_OBJECTS = {"Sparse": "sparseflow.train", "compact": "sparseflow.sparse"}


def __getattr__(name: str) -> Any:
    # On first use: the command line must be able to start, and to be interrupted, before torch is loaded.
    if name in _OBJECTS:
        return getattr(import_module(_OBJECTS[name]), name)
    if name in __all__:
        return import_module(f"sparseflow.{name}")
    raise AttributeError(f"module 'sparseflow' has no attribute {name!r}")
