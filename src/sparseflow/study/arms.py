"""Studies of named arms: each arm is a run, given as changes of a common base and trained on common seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator

from sparseflow.core import BadSpec, UnknownName
from sparseflow.study.axes import Axis, Combination, combined, label_of, set_twice
from sparseflow.study.compare import MOST_PAIRS, Statistics
from sparseflow.study.fields import Section
from sparseflow.study.read import no_such_field, overlay, validate
from sparseflow.study.spec import RunSpec, content_hash

FIRST_GRID_SEED = 1000
"""Far from the seeds that people write, so that more seeds of a study leave the seeds of its choices alone."""


def _seeds(value: Any) -> Any:
    whole = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in whole) or value in (0, [], ()):
        raise ValueError(f"write how many (3), or a list of whole numbers ([0, 1, 2]), got {value!r}")
    if len(set(whole)) < len(whole):
        raise ValueError(f"names a seed twice: {value!r}")
    return tuple(value) if isinstance(value, list | tuple) else value


Seeds = Annotated[Any, BeforeValidator(_seeds)]
"""How many, or which."""


class Entry(BaseModel):
    """An arm, or a family of arms: sections of a run laid over the base's, beside what makes several of one."""

    model_config = ConfigDict(extra="allow", frozen=True)

    cross: dict[str, Axis] = {}
    """Axes whose every combination is an arm; the last one makes the columns of a table."""
    grid: dict[str, Axis] = {}
    """Axes whose best combination is chosen, and then trained again on the study's seeds."""

    @property
    def changes(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _entries(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"write a mapping from names to changes of the base, got {value!r}")
    if not value:
        raise ValueError("needs at least one arm")
    return {str(name): {} if changes is None else changes for name, changes in value.items()}


class ArmStatistics(Statistics):
    """How arms are judged against their references."""

    alternative: Literal["two-sided", "greater", "less"] = "two-sided"
    """H1 of every test: the arm's test accuracy is another than its reference's, above it, or below it."""


class ArmsSpec(Section):
    """A study of named arms."""

    kind: Literal["arms"] = "arms"
    title: str = "Named arms"
    description: str = ""
    base: Mapping[str, Any] = {}
    """Sections of a run that all arms share."""
    seeds: Seeds = 3
    grid_seeds: Seeds = 3
    """Of the runs that a grid's choice is made on; a number starts at 1000."""
    score: Literal["val", "test"] = "val"
    """The split whose accuracy chooses a grid's winner; the papers' protocol is test. Test accuracy is reported."""
    versus: str | None = None
    """The reference of the tests: an arm, or an entry or a level of a cross, whose arms are then references place by
    place (criterion `random` for every other criterion at the same density)."""
    arms: Annotated[dict[str, Entry], BeforeValidator(_entries)]
    statistics: ArmStatistics = ArmStatistics()

    @field_validator("seeds")
    @classmethod
    def _few_enough(cls, seeds: Any) -> Any:
        if (seeds if isinstance(seeds, int) else len(seeds)) > MOST_PAIRS:
            raise ValueError(f"at most {MOST_PAIRS} seeds")
        return seeds

    @field_validator("versus", mode="before")
    @classmethod
    def _label(cls, versus: Any) -> Any:
        return versus if versus is None else label_of(versus)

    @model_validator(mode="after")
    def _disjoint(self) -> ArmsSpec:
        common = sorted(set(self.run_seeds) & set(self.choice_seeds))
        if common and any(entry.grid for entry in self.arms.values()):
            raise ValueError(
                f"seeds and grid_seeds share {', '.join(map(str, common))}: a winner is run on other seeds than it was "
                "chosen on"
            )
        return self

    @property
    def run_seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    @property
    def choice_seeds(self) -> tuple[int, ...]:
        given = self.grid_seeds
        return tuple(FIRST_GRID_SEED + k for k in range(given)) if isinstance(given, int) else tuple(given)

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as the store keeps it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def study_name(self) -> str:
        return f"arms-{content_hash(self.changes())[:12]}"


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
    arms = []
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
            points = _points(entry, [*layers, (f"{where}.cross", cell.changes)], f"{where}.grid", problems)
            arms.append(Arm(name, cell.levels, points))
    if not problems:
        problems |= dict.fromkeys([*_unscored(study, arms), *_repeated(arms), *_without_reference(study, arms)])
    if problems:
        raise BadSpec(problems)
    return arms


Layer = tuple[str, Mapping[str, Any]]


def _points(entry: Entry, layers: list[Layer], where: str, problems: dict[str, None]) -> tuple[Point, ...]:
    made = [(choice, _run(layers, where, choice, problems)) for choice in combined(entry.grid)]
    return tuple(Point(choice.levels, spec) for choice, spec in made if spec is not None)


def _run(layers: list[Layer], where: str, choice: Combination, problems: dict[str, None]) -> RunSpec | None:
    """The run that the layers make; a problem is laid to the last layer that sets its field."""
    every = [*layers, (where, choice.changes)]
    content: dict[str, Any] = {}
    for place, changes in every:
        if "seed" in changes:
            problems[f"{place}.seed: leave it out; `seeds` names the seeds of all arms"] = None
        content = overlay(content, changes)
    content.pop("seed", None)
    try:
        return validate(RunSpec, content)
    except BadSpec as error:
        for problem in error.problems:
            path = problem.partition(":")[0].split(".")
            owner = next((place for place, changes in reversed(every) if _sets(changes, path)), None)
            fallback = f"{layers[1][0]}: {problem.partition(': ')[2]}"  # fields of several sections together
            problems[f"{owner}.{problem}" if owner else fallback] = None
        return None


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
