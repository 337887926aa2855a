"""Scoring examples with as many of every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from sparseflow.core import BadValue, Batch, check_positive


def balanced(batches: Iterable[Batch], per_class: int) -> Batch:
    """One batch with the first `per_class` examples of every class that occurs in the batches, in their order.

    Raises:
        BadValue: for targets that are not class numbers, or a class with too few examples.
    """
    check_positive("samples per class", per_class)
    inputs, targets, taken = [], [], Counter[int]()
    for x, y in batches:
        if y.dim() != 1 or y.is_floating_point():
            raise BadValue(f"samples_per_class needs class numbers as targets, got {y.dtype} of shape {tuple(y.shape)}")
        keep = []
        for place, label in enumerate(y.tolist()):
            taken[label] += 1
            if taken[label] <= per_class:
                keep.append(place)
        inputs.append(x[keep])
        targets.append(y[keep])
    if not taken:
        raise BadValue("no batches were given to take examples of every class from")
    if scarce := {label: n for label, n in sorted(taken.items()) if n < per_class}:
        listed = ", ".join(f"class {label}: {n}" for label, n in scarce.items())
        raise BadValue(f"the batches hold fewer than {per_class} examples of some classes ({listed})")
    return torch.cat(inputs), torch.cat(targets)
