"""Pruning by any criterion of the catalog, in few rounds."""

from __future__ import annotations

from torch import Tensor

from small_nets import Case
from sparseflow.masks import criteria, prune

FEW_ROUNDS = 4
"""Instead of a criterion's own number, where that is large."""


def run(name: str, of: Case, density, **settings) -> dict[str, Tensor]:
    rounds = min(FEW_ROUNDS, criteria.entry(name).facts["rounds"])
    return prune(of.model, name, density, **{"batches": of.batches, "loss": of.loss, "rounds": rounds} | settings)
