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

OF_FLOAT64 = 2
"""What float64 costs, in float32's time."""

OF_A_LOSS = 1 / 3
"""Of a gradient: a forward pass alone."""

Effort = Callable[[Mapping[str, Any], Scale, int], float]
"""What an analysis computes, in gradients of the loss on one example: told its options, the scale, and how many runs
the studies have. Every entry has one as its fact `effort`."""

analyses: Catalog[Analysis] = Catalog("analysis of networks")


def effort_of(name: str, options: Mapping[str, Any], scale: Scale, runs: int) -> float:
    """Gradients of the loss on one example that an analysis takes the time of."""
    effort: Effort = analyses.entry(name).facts["effort"]
    return effort(options, scale, runs)
