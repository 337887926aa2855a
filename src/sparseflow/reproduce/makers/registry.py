"""How an item that needs no study is made: one function for each kind of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparseflow.core import Catalog
from sparseflow.report.blocks import Block
from sparseflow.reproduce.scale import Scale

Maker = Callable[[Mapping[str, Any], Scale, Path, Callable[[int, int], None]], list[Block]]
"""Told its options, the scale, the item's folder and whom to tell of its progress (done, of all)."""

makers: Catalog[Maker] = Catalog("maker of figures")
