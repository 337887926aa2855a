"""Which finished runs a person means: by folder, by the run's name, or by arm and seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sparseflow.core import BadStore, BadValue, SparseflowError, UnknownName
from sparseflow.study.arms import Arm, arms_of
from sparseflow.study.arms_analysis import choose
from sparseflow.study.arms_spec import ArmsSpec
from sparseflow.study.facts import FactsBook
from sparseflow.study.place import store_of
from sparseflow.study.read import validate
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import Store

Moment = Literal["start", "final"] | int
"""Of a training: before its first step, after its last, or after so many steps."""

FORMS = "FOLDER, FOLDER:NAME or FOLDER:ARM@SEED"


@dataclass(frozen=True)
class Finished:
    """A run that ended well, at a moment of its training.

    Attributes:
        label: what tables and figures call it.
        data_digest: of the data that it was trained on.
        accuracy: on the test set, after its last epoch; None where it was not measured.
    """

    label: str
    folder: Path
    spec: RunSpec
    at: Moment
    data_digest: str
    accuracy: float | None

    def moved(self, at: Moment) -> Finished:
        """The same run at another moment."""
        plain = self.label.removesuffix(_suffix(self.at))
        return replace(self, at=at, label=plain + _suffix(at))


@dataclass(frozen=True)
class Group:
    """Runs that were named together: all seeds of an arm, or a single run."""

    label: str
    runs: tuple[Finished, ...]


def find_groups(names: Iterable[str]) -> list[Group]:
    """The runs that people's words mean, group by group; labels that two would share say their folders too.

    A name is FOLDER (with one run, such as of `train`), FOLDER:NAME (the run's 16 hex digits, or the first few),
    FOLDER:ARM@SEED, or FOLDER:ARM for all its seeds; #start or #STEP behind it is an earlier moment of the training.

    Raises:
        BadStore: for a folder without results.
        BadValue: for a folder of several runs, of which none is named, or two names of one run.
        UnknownName: for an arm or a run that the folder does not hold.
        SparseflowError: for a run that has not finished.
    """
    groups = [find_group(name) for name in names]
    labels = [run.label for group in groups for run in group.runs]
    found = []
    for group in groups:
        prefix = f"{group.runs[0].folder}:"
        shared = any(labels.count(run.label) > 1 for run in group.runs)
        runs = tuple(replace(run, label=prefix + run.label) for run in group.runs) if shared else group.runs
        found.append(Group(prefix + group.label if shared else group.label, runs))
    every = [(str(run.folder), run.spec.name, run.at) for group in found for run in group.runs]
    for group in found:
        for run in group.runs:
            if every.count((str(run.folder), run.spec.name, run.at)) > 1:
                raise BadValue(f"{run.label} is named twice; name it once")
    return found


def find_group(name: str) -> Group:
    """As `find_groups`, of one name."""
    place, at = _moment(name)
    folder, rest = _folder(place)
    with _opened(folder) as store:
        known = _Known(folder, store)
        group = (known.of_arm(rest) or known.by_name(rest)) if rest else known.only()
    if at == "final":
        return group
    runs = tuple(run.moved(at) for run in group.runs)
    return Group(group.label + _suffix(at), runs)


class _Known:
    """What the store of a folder holds."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._studies = folder, store.studies()
        self._statuses, self._results, self._specs = store.statuses(), store.results(), store.specs()

    def only(self) -> Group:
        """The run of the latest training, or the only run of all."""
        kind, content = (self._studies[0][1], self._studies[0][2]) if self._studies else ("", {})
        if kind == "train":
            spec = validate(RunSpec, content["spec"])
        elif len(self._specs) == 1:
            spec = validate(RunSpec, next(iter(self._specs.values())))
        else:
            raise BadValue(
                f"{self._folder} holds {len(self._specs)} runs; name one of them: FOLDER:NAME"
                f"{f' or FOLDER:ARM@SEED ({self._listed()})' if self._arms() else ''}"
            )
        run = self._finished(spec, self._folder.name or str(self._folder))
        return Group(run.label, (run,))

    def of_arm(self, words: str) -> Group | None:
        """The runs of an arm, of all its seeds or of the one behind the @; None for what no arm is called."""
        arms = self._arms()
        name, seed = words, None
        if name not in arms and (split := re.fullmatch(r"(.*)@(\d+)", words)):
            name, seed = split[1], int(split[2])
        if name not in arms:
            return None
        study, arm, facts = arms[name]
        point = choose(study, arm, self._results, facts).winner
        if point is None:
            raise SparseflowError(f"{self._folder}: what to choose for {name} is open yet; finish the study first")
        if seed is not None and seed not in study.run_seeds:
            raise UnknownName(f"seed of {name}", str(seed), map(str, study.run_seeds))
        seeds = study.run_seeds if seed is None else (seed,)
        return Group(words, tuple(self._finished(point.at(s), f"{name}@{s}") for s in seeds))

    def by_name(self, words: str) -> Group:
        """The run of that name, or of the only name that begins so."""
        found = [name for name in self._specs if name.startswith(words)] if re.fullmatch("[0-9a-f]+", words) else []
        if len(found) > 1:
            raise BadValue(f"{self._folder}: {len(found)} runs begin with {words!r} ({', '.join(found)}); write more")
        if not found:
            known = [*self._arms(), *(sorted(self._specs) if len(self._specs) <= 20 else ())]
            raise UnknownName(f"run of {self._folder}", words, known)
        run = self._finished(validate(RunSpec, self._specs[found[0]]), f"{self._folder.name}:{found[0][:8]}")
        return Group(run.label, (run,))

    def _finished(self, spec: RunSpec, label: str) -> Finished:
        status = self._statuses.get(spec.name, "not started")
        if status != "finished":
            raise SparseflowError(
                f"{label}: the run {spec.name} in {self._folder} has the status {status!r}, and only finished runs "
                "have a network to look at"
            )
        result = self._results[spec.name]
        return Finished(label, self._folder, spec, "final", result["data_digest"], result["final"].get("test_accuracy"))

    def _arms(self) -> dict[str, tuple[ArmsSpec, Arm, FactsBook]]:
        """Name -> arm, of the study that was asked for last where several have one of that name."""
        found: dict[str, tuple[ArmsSpec, Arm, FactsBook]] = {}
        for _, kind, content in self._studies:
            if kind == "arms":
                study = validate(ArmsSpec, content["spec"])
                facts = FactsBook.load(content["facts"])
                found = {arm.name: (study, arm, facts) for arm in arms_of(study)} | found
        return found

    def _listed(self) -> str:
        arms = self._arms()
        seeds = sorted({seed for study, _, _ in arms.values() for seed in study.run_seeds})
        return f"arms: {', '.join(arms)}; seeds: {', '.join(map(str, seeds))}"


@contextmanager
def _opened(folder: Path) -> Iterator[Store]:
    store = store_of(folder)
    try:
        yield store
    finally:
        store.close()


def _moment(name: str) -> tuple[str, Moment]:
    """What stands before the last # and the moment behind it, where there is one."""
    place, hash_, words = name.rpartition("#")
    if not hash_:
        return name, "final"
    if words in ("start", "final"):
        return place, "start" if words == "start" else "final"
    if not words.isdecimal():
        raise BadValue(f"{name}: behind # stands start, final or a number of steps, got {words!r}")
    return place, int(words)


def _suffix(at: Moment) -> str:
    return "" if at == "final" else f"#{at}"


def _folder(place: str) -> tuple[Path, str]:
    """The longest folder that the words begin with, and what stands behind its colon."""
    colons = [k for k, letter in enumerate(place) if letter == ":"]
    for end in [len(place), *reversed(colons)]:
        if Path(place[:end]).is_dir():
            return Path(place[:end]), place[end + 1 :]
    raise BadStore(f"{place}: no such folder (a run is named by {FORMS})")
