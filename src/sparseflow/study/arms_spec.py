"""The specification of a study of named arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator

from sparseflow.study.axes import Axis, label_of
from sparseflow.study.compare import MOST_PAIRS, Statistics
from sparseflow.study.fields import Section
from sparseflow.study.likeness_spec import LikenessSpec
from sparseflow.study.spec import content_hash

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
    panels: Mapping[str, tuple[str, ...]] = {}
    """Title -> arms whose curves share a row of panels; without any, rows follow the crosses."""
    statistics: ArmStatistics = ArmStatistics()
    likeness: LikenessSpec | None = None
    """Compare the finished networks with one of them; the study then keeps them."""

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
