"""How a cell of a paper's table is read off finished studies: one function for each kind of table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparseflow.core import Catalog
from sparseflow.reproduce.measured import Measured, Place
from sparseflow.reproduce.source import Source

Reader = Callable[[Sequence[Source], Place], Measured | None]
"""Told the studies of an item and where the cell stands; None where nothing has been measured for it."""

readers: Catalog[Reader] = Catalog("reader of tables")
