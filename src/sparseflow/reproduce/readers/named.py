"""Arms under the names that a paper gives them."""

from __future__ import annotations

from collections.abc import Iterator

from sparseflow.reproduce.source import Source
from sparseflow.study import ArmResult


def named_arms(source: Source) -> Iterator[tuple[dict[str, str], ArmResult]]:
    """(axis -> label, arm) of every arm of a study that the paper has a name for."""
    for result in source.arms:
        own = source.arm_labels(result)
        if own is not None:
            yield source.called(own), result
