"""Criteria that look at the weights alone."""

from __future__ import annotations

import torch

from sparseflow.masks.criteria.snapshot import Snapshot, criteria
from sparseflow.masks.select import Scores


@criteria.add(
    "random", cite="001 eq. A.2", budget="uniform", rounds=1, mode="eval", needs_batches=False, runs_model=False
)
def random(at: Snapshot) -> Scores:
    """One score for every weight: ties are broken at random."""
    return {name: torch.zeros_like(weight) for name, weight in at.weights.items()}


@criteria.add(
    "magnitude",
    cite="Han et al. 2015, arXiv:1506.02626",
    budget="global",
    rounds=1,
    mode="eval",
    needs_batches=False,
    runs_model=False,
)
def magnitude(at: Snapshot) -> Scores:
    """|theta|."""
    return {name: weight.abs() for name, weight in at.weights.items()}
