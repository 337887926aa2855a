"""The finished runs of an item's studies, under the paper's names, and where what is found of them is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sparseflow.reproduce.readers.named import named_arms
from sparseflow.reproduce.source import Source
from sparseflow.study import Finished, PartFile, Surroundings
from sparseflow.study.fingerprint import fingerprint
from sparseflow.study.lock import locked


@dataclass(frozen=True)
class Named:
    """A run that has ended well.

    Attributes:
        name: what the paper calls its arm, where several arms have one name with the arm's own.
    """

    arm: str
    name: str
    run: Finished


def finished_runs(sources: Sequence[Source]) -> list[Named]:
    """The finished runs of every arm that the paper has a name for; diverged ones left no network to look at."""
    found: list[Named] = []
    for source in sources:
        named = [(labels, result) for labels, result in named_arms(source)]
        telling = [axis for axis in _axes(named) if len({labels.get(axis) for labels, _ in named}) > 1]
        seeds = source.arms_spec.run_seeds
        for labels, result in named:
            name = " ".join(labels[axis] for axis in telling if axis in labels) or result.arm.name
            for seed, member in zip(seeds, result.members, strict=True):
                ended = source.results.get(member.run, {})
                if ended.get("status") == "finished" and result.choice.winner is not None:
                    label = name if len(seeds) == 1 else f"{name}, seed {seed}"
                    spec, accuracy = result.choice.winner.at(seed), ended["final"].get("test_accuracy")
                    run = Finished(label, source.study.runs, spec, "final", ended["data_digest"], accuracy)
                    found.append(Named(result.arm.name, name, run))
    return found


def _axes(named: Sequence[tuple[dict[str, str], object]]) -> list[str]:
    return list(dict.fromkeys(axis for labels, _ in named for axis in labels))


@contextmanager
def parts_of(folder: Path) -> Iterator[PartFile]:
    """What has been found already, in a folder of its own beside the page."""
    place = folder / "analysis"
    with locked(place):
        parts = PartFile(place)
        try:
            yield parts
        finally:
            parts.close()


def made_with(surroundings: Surroundings) -> dict[str, str]:
    """What the last digits depend on."""
    return {"made_with": fingerprint(surroundings.device, torch.get_num_threads())}
