"""Arms under the names that a paper gives them."""

from __future__ import annotations

from collections.abc import Iterator

from sparseflow.reproduce.measured import Place
from sparseflow.reproduce.source import Source
from sparseflow.study import ArmResult


def named_arms(source: Source) -> Iterator[tuple[dict[str, str], ArmResult]]:
    """(axis -> label, arm) of every arm of a study that the paper has a name for."""
    relabel = source.experiment.relabel
    for result in source.arms:
        own = source.arm_labels(result)
        if own is not None:
            labels = {**source.part.labels, **own}
            yield {axis: str(relabel.get(axis, {}).get(label, label)) for axis, label in labels.items()}, result


def agrees(labels: Place, place: Place) -> bool:
    """Whether no label contradicts the place; axes without a label say nothing."""
    return all(labels.get(axis, label) == label for axis, label in place.items())
