"""Which runs go to one worker: those of one shape that share its program, and those that follow on each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from sparseflow.study.build import stacks
from sparseflow.study.facts import FactsOf
from sparseflow.study.lineage import first_round
from sparseflow.study.masked import MaskSpec
from sparseflow.study.sections import InitSpec
from sparseflow.study.spec import RunSpec

T = TypeVar("T")

MOST_TOGETHER = 8
"""Runs in one stack: beyond, a step costs what its arithmetic costs."""

Group = tuple[RunSpec, ...]


def grouped(specs: Sequence[RunSpec], jobs: int, facts: FactsOf) -> list[Group]:
    """The runs in groups for `jobs` workers, in the order of their first members; results do not depend on it.

    The rounds of a lottery are one group, in their order, since each begins with what the one before it leaves.
    """
    chains: dict[str, list[RunSpec]] = {}
    for spec in specs:
        if spec.mask.lottery is not None:
            chains.setdefault(first_round(spec).name, []).append(spec)
    alike: dict[str, list[RunSpec]] = {}
    qualifies: dict[str, bool] = {}
    for spec in specs:
        if spec.mask.lottery is not None:
            continue
        key = shape_key(spec)
        if key not in qualifies:
            data = facts(spec)
            qualifies[key] = stacks(spec, data.input_shape, data.classes)
        alike.setdefault(key if qualifies[key] else spec.name, []).append(spec)
    most = MOST_TOGETHER
    while most > 1 and sum(-(-len(runs) // most) for runs in alike.values()) < jobs:
        most -= 1
    together = [part for runs in alike.values() for part in equal_parts(runs, most)]
    return [tuple(sorted(chain, key=_round)) for chain in chains.values()] + together


def _round(spec: RunSpec) -> int:
    assert spec.mask.lottery is not None
    return spec.mask.lottery.round


def shape_key(spec: RunSpec) -> str:
    """Equal for runs that differ in seed, mask and start alone."""
    mask = MaskSpec() if spec.mask.execution != "compact" else spec.mask
    sparse = spec.mask.sparse
    same = spec.model_copy(update={"seed": 0, "mask": mask, "init": InitSpec()})
    return f"{sparse} {same.model_dump_json()}"


def equal_parts(items: Sequence[T], most: int) -> list[tuple[T, ...]]:
    """As few parts of at most `most` as there can be, as equal as can be; none of nothing."""
    count = max(1, -(-len(items) // most))
    edges = [len(items) * k // count for k in range(count + 1)]
    return [tuple(items[a:b]) for a, b in pairwise(edges) if b > a]
