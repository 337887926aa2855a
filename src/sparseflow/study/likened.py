"""The finished networks of a study of arms, compared with one of them: answers, distances and straight paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparseflow.core import BadStore, replacing
from sparseflow.measure.interpolate import Path as Line
from sparseflow.measure.similarity import Comparison
from sparseflow.stats import Summary
from sparseflow.study.arms import Arm
from sparseflow.study.arms_analysis import choose
from sparseflow.study.arms_spec import ArmsSpec
from sparseflow.study.drive import Results
from sparseflow.study.facts import FactsOf
from sparseflow.study.finished import Finished, Group
from sparseflow.study.parts import PartFile
from sparseflow.study.paths import Way, Ways, ways
from sparseflow.study.reload import Loaded, reload
from sparseflow.study.run import DataCache
from sparseflow.study.similar import Contrast, Likeness, Member, Place, Row, likeness
from sparseflow.study.spec import RunSpec

FOLDER = "likeness"
"""In the folder of the study: what was found, and the parts of it that are there already."""

Counting = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""What is done -> inside, told how much of it."""


@dataclass(frozen=True)
class Asked:
    """What a study's `likeness` means in its results.

    Attributes:
        reference: None while it has not ended well.
        groups: arm by arm, the networks that there are.
        missing: labels of runs that have not ended.
        diverged: labels of runs that left no network to compare.
    """

    reference: Finished | None
    groups: tuple[Group, ...]
    missing: tuple[str, ...]
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class Likened:
    """What was found.

    Attributes:
        train_ways, test_ways: from every network, at its start and end, to the reference.
    """

    likeness: Likeness
    train_ways: tuple[Way, ...]
    test_ways: tuple[Way, ...]

    def ways(self, split: Literal["train", "test"]) -> tuple[Way, ...]:
        return self.train_ways if split == "train" else self.test_ways


def asked(study: ArmsSpec, arms: Sequence[Arm], results: Results, facts: FactsOf, folder: Path) -> Asked:
    """The runs that `study.likeness` names, as far as they have ended."""
    wanted = study.likeness
    assert wanted is not None
    by_name = {arm.name: arm for arm in arms}
    missing: list[str] = []
    diverged: list[str] = []

    def finished(spec: RunSpec, label: str) -> Finished | None:
        result = results.get(spec.name, {"status": "missing"})
        if result["status"] == "finished":
            return Finished(label, folder, spec, "final", result["data_digest"], result["final"].get("test_accuracy"))
        (diverged if result["status"] == "diverged" else missing).append(label)
        return None

    lead = by_name[wanted.reference].points[0].at(wanted.seed)
    reference = finished(lead, f"{wanted.reference}@{wanted.seed}")
    groups = []
    for name in wanted.arms:
        point = choose(study, by_name[name], results, facts).winner
        if point is None:
            missing.append(name)
            continue
        runs = [finished(point.at(seed), f"{name}@{seed}") for seed in study.run_seeds]
        if there := tuple(run for run in runs if run is not None):
            groups.append(Group(name, there))
    return Asked(reference, tuple(groups), tuple(missing), tuple(dict.fromkeys(diverged)))


def compare_networks(
    study: ArmsSpec,
    what: Asked,
    results: Results,
    folder: Path,
    cache: DataCache,
    device: str,
    made_with: str,
    counting: Counting,
) -> Likened:
    """Compare them all, and keep what is found in the study's folder; paths that are there are not walked again.

    Raises:
        SparseflowError: as of `reload`, or for networks of different architectures or data.
        BadStore: if the folder cannot be written.
    """
    wanted, reference = study.likeness, what.reference
    assert wanted is not None
    assert reference is not None
    runs = [run for group in what.groups for run in group.runs]
    every = list({run.label: run for run in [reference, *runs]}.values())
    early = [run.moved("start") for run in runs if run.label != reference.label]
    with counting("networks") as progress:
        nets = {}
        for number, run in enumerate([*every, *early], 1):
            nets[run.label] = reload(run, cache, device)
            progress(number, len(every) + len(early))
    ends, starts = {run.label: nets[run.label] for run in every}, [nets[run.label] for run in early]
    with counting("answers") as progress:
        alike = likeness(what.groups, ends, starts, reference.label, wanted.examples, wanted.over, progress)
    _make(folder / FOLDER)
    parts = PartFile(folder / FOLDER)
    try:
        way_of = {}
        for split in ("train", "test"):
            how = Ways(wanted.alphas, split, wanted.path_examples, wanted.batch_norm)
            named = [(group.label, nets[run.moved(at).label]) for at in ("start", "final") for group in what.groups
                     for run in group.runs if run.label != reference.label]  # fmt: skip
            with counting(f"paths to {reference.label}, {split} loss") as progress:
                way_of[split] = _each_once(named, ends[reference.label], how, parts, made_with, progress)
    finally:
        parts.close()
    found = Likened(alike, *(tuple(way_of[split]) for split in ("train", "test")))
    key = _key(study, what, results)
    path = _file(folder, key)
    try:
        with replacing(path) as aside:
            aside.write_text(json.dumps({"of": key, "made_with": made_with, "is": _dumped(found)}), encoding="utf-8")
    except OSError as error:
        raise BadStore(f"cannot write {path}: {error.strerror}") from None
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BadStore(f"cannot write to the output folder {folder}: {error.strerror}") from None


def _each_once(
    named: Sequence[tuple[str, Loaded]],
    target: Loaded,
    how: Ways,
    parts: PartFile,
    made_with: str,
    progress: Callable[[int, int], None],
) -> list[Way]:
    """The path of each network; equal ones, such as the common start of a group, are walked once."""
    values = [net.identity["values"] for _, net in named]
    first = {value: k for k, value in reversed(list(enumerate(values)))}
    alone = [named[k] for k in sorted(first.values())]
    found = {
        net.identity["values"]: way
        for (_, net), way in zip(
            alone, ways(alone, target, how, parts, {"made_with": made_with}, progress), strict=True
        )
    }
    return [
        replace(found[value], label=net.label, group=group, moment=str(net.run.at))
        for (group, net), value in zip(named, values, strict=True)
    ]


def known(study: ArmsSpec, what: Asked, results: Results, folder: Path) -> Likened | None:
    """What was found for these very runs, if it was.

    Raises:
        BadStore: for a damaged file.
    """
    key = _key(study, what, results)
    path = _file(folder, key)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["of"] != key:
            return None
        return _loaded(content["is"])
    except (ValueError, KeyError, TypeError):
        raise BadStore(f"{path} is damaged; remove it, and the same study makes it again") from None


def _file(folder: Path, key: dict[str, Any]) -> Path:
    """A folder of several studies has one for each; one whose question has changed since is never looked at."""
    asked = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / FOLDER / f"found-{asked[:12]}.json"


def _key(study: ArmsSpec, what: Asked, results: Results) -> dict[str, Any]:
    """All that the numbers depend on, but for the machine: claims are judged anew each time."""
    assert study.likeness is not None
    runs = [*([what.reference] if what.reference else []), *(run for group in what.groups for run in group.runs)]
    ends = {run.label: [run.spec.name, results[run.spec.name]["digest"], run.data_digest] for run in runs}
    return {"likeness": study.likeness.model_dump(mode="json", exclude={"claims"}), "runs": ends}


# As JSON, which keeps floats bit for bit; NaN too ------------------------------------------------------------------


def _dumped(found: Likened) -> dict[str, Any]:
    content = asdict(found)
    content["likeness"]["between"] = found.likeness.between.tolist()
    return content


def _loaded(content: Mapping[str, Any]) -> Likened:
    alike = content["likeness"]
    return Likened(
        Likeness(
            alike["reference"],
            alike["examples"],
            tuple(_row(row) for row in alike["rows"]),
            tuple(Place(**place) for place in alike["places"]),
            np.array(alike["between"]),
            tuple(Member(**member) for member in alike["members"]),
            tuple(Contrast(**contrast) for contrast in alike["contrasts"]),
        ),
        *(tuple(_way(way) for way in content[name]) for name in ("train_ways", "test_ways")),
    )


def _row(row: Mapping[str, Any]) -> Row:
    comparison = Comparison(**{name: _summary(value) for name, value in row["comparison"].items()})
    summaries = {name: _summary(row[name]) for name in ("start", "final", "overlap")}
    return Row(row["group"], row["networks"], comparison, **summaries)


def _summary(value: Any) -> Any:
    return Summary(**value) if isinstance(value, dict) else value


def _way(way: Mapping[str, Any]) -> Way:
    path = way["path"]
    accuracies = None if path["accuracies"] is None else tuple(path["accuracies"])
    return Way(**{**way, "path": Line(tuple(path["alphas"]), tuple(path["losses"]), accuracies)})
