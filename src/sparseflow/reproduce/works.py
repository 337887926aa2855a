"""What every item takes at the named scales, counted beforehand: `works.tsv`, which `make works` writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sparseflow.reproduce.analyses import effort_of
from sparseflow.reproduce.assess import needs_runs
from sparseflow.reproduce.experiment import Experiment, experiments
from sparseflow.reproduce.items import FOLDER
from sparseflow.reproduce.scale import NAMED, Scale, scale_named
from sparseflow.reproduce.shrink import papers_sizes, shrunk
from sparseflow.reproduce.specs import specification
from sparseflow.reproduce.work import Work, together, work_of, work_of_looking
from sparseflow.search import Search, quests
from sparseflow.study import (
    ArmsSpec,
    CompareSpec,
    DataFacts,
    RunSpec,
    arms_of,
    cells,
    first_runs,
    runs_of,
    with_predecessors,
)

PATH = FOLDER / "works.tsv"
_HEADER = ("item", "scale", "runs", "gflops", "layer_steps")
_SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28)}
_CLASSES = {"cifar-100": 100, "tiny-imagenet": 200, "imagenet": 1000}


@cache
def works() -> Mapping[str, Mapping[str, Work]]:
    """Item -> scale -> what it takes, of the items that train something."""
    found: dict[str, dict[str, Work]] = {}
    with PATH.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            work = Work(int(row["runs"]), float(row["gflops"]), float(row["layer_steps"]))
            found.setdefault(row["item"], {})[row["scale"]] = work
    return found


def counted(experiment: Experiment, scale: Scale) -> Work:
    """What an item takes at a scale, with the papers' whole data sets."""
    parts = ((part.kind, _runs(shrunk(part.content, scale, papers_sizes))) for part in experiment.parts)
    runs = together(parts)
    work = work_of(runs, _shape)
    if experiment.analyses is None:
        return work
    gradients = effort_of(experiment.analyses, experiment.options, scale, len(runs))
    return work + work_of_looking(gradients, runs, _shape)


def _runs(content: Mapping[str, object]) -> list[RunSpec]:
    spec = specification(content)[1]
    if isinstance(spec, CompareSpec):
        return list(runs_of(cells(spec, _facts(spec))))
    if isinstance(spec, ArmsSpec):
        return with_predecessors(first_runs(spec, arms_of(spec)))
    return list(Search(quests(spec, _facts)).expected())


def _facts(run: RunSpec) -> DataFacts:
    train, test, shape, classes = _shape(run.data.name)
    return DataFacts(run.data.name, shape, classes, train, test, "")


def _shape(name: str) -> tuple[int, int, tuple[int, ...], int]:
    train, test, _ = papers_sizes(name)
    sides = {"tiny-imagenet": (3, 64, 64), "imagenet": (3, 224, 224)}
    return train, test, _SHAPES.get(name, sides.get(name, (3, 32, 32))), _CLASSES.get(name, 10)


def write(path: Path = PATH) -> None:
    """Count every item at the named scales anew."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_HEADER)
        for item, experiment in experiments().items():
            for name in NAMED if needs_runs(experiment) else ():
                work = counted(experiment, scale_named(name))
                writer.writerow([item, name, work.runs, f"{work.gflops:.4g}", f"{work.layer_steps:.4g}"])


if __name__ == "__main__":
    write()
