"""SNIP: connection sensitivity."""

from __future__ import annotations

from sparseflow.masks.criteria.snapshot import Snapshot, criteria
from sparseflow.masks.select import Scores


@criteria.add(
    "snip",
    cite="Lee et al. 2019, arXiv:1810.02340",
    budget="global",
    rounds=1,
    mode="train",
    needs_batches=True,
    runs_model=True,
)
def snip(at: Snapshot) -> Scores:
    """|theta * dL/dtheta|, the effect on the loss of a gate on each connection.

    The derivative with respect to a gate c in L(c * theta), at c = 1. Several rounds are iterative SNIP (de Jorge et
    al. 2020, arXiv:2006.09081; Verdenius et al. 2020, arXiv:2006.00896).
    """
    gradients = at.gradients
    return {name: (weight * gradients[name]).abs() for name, weight in at.weights.items()}
