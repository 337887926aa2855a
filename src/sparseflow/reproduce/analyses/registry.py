"""How the networks that an item's studies trained are looked at: one function for each kind of figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseflow.core import Catalog
from sparseflow.report.blocks import Block
from sparseflow.reproduce.scale import Scale
from sparseflow.reproduce.source import Source
from sparseflow.study import Surroundings

Progress = Callable[[int, int], None]

Analysis = Callable[[Sequence[Source], Mapping[str, Any], Scale, Path, Surroundings, Progress], list[Block]]
"""Told the studies, which keep their networks, its options, the scale, the item's folder, where the data are and on
which device, and whom to tell of its progress (done, of all). What is found is kept in the folder, and a call that was
cut goes on. Nothing is shown of a study none of whose runs has ended."""

analyses: Catalog[Analysis] = Catalog("analysis of networks")
