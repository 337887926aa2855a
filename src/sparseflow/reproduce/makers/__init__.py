"""Makers of figures that need no study; a new kind of figure is one function with an entry in `makers`."""

from sparseflow.reproduce.makers import functions as _functions  # noqa: F401  (enters its makers)
from sparseflow.reproduce.makers import signal as _signal  # noqa: F401
from sparseflow.reproduce.makers.registry import Maker, makers

__all__ = ["Maker", "makers"]
