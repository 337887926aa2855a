"""Studies of named arms: each arm is a run, given as changes of a common base and trained on common seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparseflow.core import BadSpec, UnknownName
from sparseflow.study.arms_spec import ArmsSpec, Entry
from sparseflow.study.axes import Combination, combined, set_twice
from sparseflow.study.lineage import with_predecessors
from sparseflow.study.read import no_such_field, overlay, validate
from sparseflow.study.spec import RunSpec


@dataclass(frozen=True)
class Point:
    """One setting of an arm: the run (with seed 0) and, of a grid, the levels that make it."""

    levels: Mapping[str, str]
    spec: RunSpec

    @property
    def label(self) -> str:
        return ", ".join(f"{axis.rpartition('.')[2]} {level}" for axis, level in self.levels.items())

    def at(self, seed: int) -> RunSpec:
        return self.spec.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        entry: its name in the specification; several arms of a cross share it.
        levels: axis of the cross -> label; empty without one.
        points: the settings that it is chosen from, or the only one.
    """

    entry: str
    levels: Mapping[str, str]
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        return " ".join([self.entry, *self.levels.values()])

    @property
    def chosen(self) -> bool:
        """Whether there is something to choose."""
        return len(self.points) > 1

    @property
    def place(self) -> tuple[str, ...]:
        return (self.entry, *self.levels.values())


def arms_of(study: ArmsSpec) -> list[Arm]:
    """The arms of a study in the order of its specification.

    Raises:
        BadSpec: listing every mistake once, with the place that made it.
    """
    problems: dict[str, None] = {}
    drafts = []
    for name, entry in study.arms.items():
        where = f"arms.{name}"
        known = [*RunSpec.model_fields, "cross", "grid"]
        for key in entry.changes.keys() - RunSpec.model_fields.keys():
            problems[no_such_field(f"{where}.{key}", key, known)] = None
        for field in set_twice(entry.cross, entry.grid):
            problems[f"{where}: two axes set {field}"] = None
        own = {key: value for key, value in entry.changes.items() if key in RunSpec.model_fields}
        layers = [("base", study.base), (where, own)]
        for cell in combined(entry.cross):
            drafts.append(_Draft(name, entry, cell, [*layers, (f"{where}.cross", cell.changes)]))
    making = _Making(drafts, problems)
    arms = [Arm(draft.entry_name, draft.cell.levels, making.points(draft)) for draft in drafts]
    if not problems:
        problems |= dict.fromkeys(
            [
                *_unscored(study, arms),
                *_repeated(arms),
                *_without_reference(study, arms),
                *_undrawn(study, arms),
                *_uncompared(study, arms),
            ]
        )
    if problems:
        raise BadSpec(problems)
    return arms


Layer = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Draft:
    """An arm as it is written."""

    entry_name: str
    entry: Entry
    cell: Combination
    layers: list[Layer]

    @property
    def name(self) -> str:
        return " ".join([self.entry_name, *self.cell.levels.values()])


class _Making:
    """From what is written to runs; an arm whose mask is inherited from another arm has that one's run in its own."""

    def __init__(self, drafts: Sequence[_Draft], problems: dict[str, None]) -> None:
        self._drafts = {draft.name: draft for draft in drafts}
        self._problems = problems
        self._under_way: list[str] = []

    def points(self, draft: _Draft) -> tuple[Point, ...]:
        self._under_way.append(draft.name)
        where = f"arms.{draft.entry_name}.grid"
        made = [(choice, self._run([*draft.layers, (where, choice.changes)])) for choice in combined(draft.entry.grid)]
        self._under_way.pop()
        return tuple(Point(choice.levels, spec) for choice, spec in made if spec is not None)

    def _run(self, layers: list[Layer]) -> RunSpec | None:
        """The run that the layers make; a problem is laid to the last layer that sets its field."""
        content: dict[str, Any] = {}
        for place, changes in layers:
            if "seed" in changes:
                self._problems[f"{place}.seed: leave it out; `seeds` names the seeds of all arms"] = None
            content = overlay(content, changes)
        content.pop("seed", None)
        try:
            link = _linked_arm(content)
            if link is not None:
                run = self._linked(link)
                if run is None:
                    return None  # said at that arm
                content = overlay(content, {"mask": {"inherited": {"run": run.changes()}}})
            return validate(RunSpec, content)
        except BadSpec as error:
            for problem in error.problems:
                path = problem.partition(":")[0].split(".")
                owner = next((place for place, changes in reversed(layers) if _sets(changes, path)), None)
                fallback = f"{layers[1][0]}: {problem.partition(': ')[2]}"  # fields of several sections together
                self._problems[f"{owner}.{problem}" if owner else fallback] = None
            return None

    def _linked(self, name: str) -> RunSpec | None:
        field = "mask.inherited.run"
        if name not in self._drafts:
            raise BadSpec([f"{field}: {UnknownName('arm', name, self._drafts)}"])
        if name in self._under_way:
            circle = " -> ".join([*self._under_way[self._under_way.index(name) :], name])
            raise BadSpec([f"{field}: arms inherit from each other in a circle ({circle})"])
        if self._drafts[name].entry.grid:
            raise BadSpec([f"{field}: {name} has a grid, whose winner is not known yet; name an arm without one"])
        points = self.points(self._drafts[name])
        return points[0].spec if points else None


def _linked_arm(content: Mapping[str, Any]) -> str | None:
    """The arm that the mask is inherited from, where one is named."""
    mask = content.get("mask")
    inherited = mask.get("inherited") if isinstance(mask, Mapping) else None
    run = inherited.get("run") if isinstance(inherited, Mapping) else None
    return run if isinstance(run, str) else None


def _sets(changes: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(changes, Mapping):
            return True
        if key not in changes:
            return False
        changes = changes[key]
    return True


def _unscored(study: ArmsSpec, arms: Sequence[Arm]) -> list[str]:
    """Grids that have nothing to choose by."""
    return [
        f"arms.{arm.entry}.grid: a choice needs a validation split: set data.val_fraction (base.data.val_fraction, "
        "say 0.1), or score: test to choose on the test set"
        for arm in arms
        if arm.chosen and study.score == "val" and any(point.spec.data.val_fraction == 0 for point in arm.points)
    ]


def _repeated(arms: Sequence[Arm]) -> list[str]:
    problems = []
    names: dict[str, Arm] = {}
    same: dict[frozenset[str], Arm] = {}
    for arm in arms:
        runs = [point.spec.name for point in arm.points]
        if arm.name in names:
            problems.append(f"arms: {arm.entry} and {names[arm.name].entry} both make an arm called {arm.name!r}")
        elif frozenset(runs) in same:
            problems.append(f"arms: {same[frozenset(runs)].name} and {arm.name} are the same runs; leave one out")
        if len(set(runs)) < len(runs):
            problems.append(f"arms.{arm.entry}.grid: two of its points are the same run")
        names.setdefault(arm.name, arm)
        same.setdefault(frozenset(runs), arm)
    return problems


def references(study: ArmsSpec, arms: Sequence[Arm]) -> dict[str, Arm]:
    """Arm -> the arm that it is tested against, for those that have one.

    `versus` names an arm, which is everyone's reference, or an entry or level: then an arm's reference is the one that
    stands in its place but for that entry or level.
    """
    wanted = study.versus
    if wanted is None:
        return {}
    by_name = {arm.name: arm for arm in arms}
    if wanted in by_name:
        return {arm.name: by_name[wanted] for arm in arms if arm.name != wanted}
    at_place = {arm.place: arm for arm in arms}
    found = {}
    for arm in arms:
        others = [(*arm.place[:k], wanted, *arm.place[k + 1 :]) for k in range(len(arm.place))]
        sibling = next((at_place[place] for place in others if place in at_place), arm)
        if sibling is not arm:
            found[arm.name] = sibling
    return found


def _without_reference(study: ArmsSpec, arms: Sequence[Arm]) -> list[str]:
    """A `versus` that gives no arm a reference, unless it names one."""
    names = [arm.name for arm in arms]
    if study.versus is None or study.versus in names or references(study, arms):
        return []
    known = [*names, *(part for arm in arms for part in arm.place)]
    return [f"versus: {UnknownName('arm, entry or level', study.versus, dict.fromkeys(known))}"]


def _undrawn(study: ArmsSpec, arms: Sequence[Arm]) -> list[str]:
    """Panels of arms that do not exist, or of none."""
    names = [arm.name for arm in arms]
    problems = [f"panels.{title}: needs at least one arm" for title, shown in study.panels.items() if not shown]
    return problems + [
        f"panels.{title}: {UnknownName('arm', name, names)}"
        for title, shown in study.panels.items()
        for name in shown
        if name not in names
    ]


def compared(study: ArmsSpec, arms: Sequence[Arm]) -> list[RunSpec]:
    """The runs whose networks a study compares when it has ended, the reference first; none where it does not.

    Of a grid, every point that may win.
    """
    if study.likeness is None:
        return []
    by_name = {arm.name: arm for arm in arms}
    named = [by_name[name] for name in study.likeness.arms]
    groups = [point.at(seed) for arm in named for point in arm.points for seed in study.run_seeds]
    reference = by_name[study.likeness.reference].points[0].at(study.likeness.seed)
    return list({run.name: run for run in [reference, *groups]}.values())


def _uncompared(study: ArmsSpec, arms: Sequence[Arm]) -> list[str]:
    """Arms of `likeness` that do not exist, or a reference that is no run of the study."""
    wanted = study.likeness
    if wanted is None:
        return []
    by_name = {arm.name: arm for arm in arms}
    problems = [
        f"likeness.{field}: {UnknownName('arm', name, by_name)}"
        for field, names in (("reference", [wanted.reference]), ("arms", wanted.arms))
        for name in names
        if name not in by_name
    ]
    if problems:
        return problems
    lead = by_name[wanted.reference]
    if lead.chosen:
        return [f"likeness.reference: {lead.name} has a grid, whose winner is not known yet; name an arm without one"]
    own = [point.at(seed) for arm in arms for point in arm.points for seed in study.run_seeds]
    if lead.points[0].at(wanted.seed).name not in {run.name for run in with_predecessors(own)}:
        seeds = ", ".join(map(str, study.run_seeds))
        return [
            f"likeness.seed: {lead.name} at seed {wanted.seed} is no run of this study, whose seeds are {seeds}; "
            "others are run where an arm inherits from them"
        ]
    return []
