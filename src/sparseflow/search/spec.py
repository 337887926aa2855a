"""The specification of a search over layer densities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sparseflow.core import BadSpec, BadValue
from sparseflow.search.halving import Rungs, halvings
from sparseflow.search.samplers import check_options, samplers
from sparseflow.search.space import Space
from sparseflow.study import DataFacts, RunSpec, overlay, validate
from sparseflow.study.arms_spec import ArmStatistics, Entry, Seeds
from sparseflow.study.axes import Axis, combined, set_twice
from sparseflow.study.build import masked_sizes
from sparseflow.study.fields import Density, Positive, Section, Whole, known_in
from sparseflow.study.spec import content_hash

FIRST_TRIAL_SEED = 1000
"""Far from the seeds that people write, so that what is found is judged on seeds that found nothing."""

_BASE_MASK = ("exclude", "empty", "execution")

OWN_ARMS = ("dense", "winner", "median", "transferred")
"""What is trained again after the search, if there is such; rivals have other names."""


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SamplerSpec(BaseModel):
    """What proposes vectors, with its own options beside its name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "random"

    @model_validator(mode="after")
    def _known(self) -> SamplerSpec:
        known_in(samplers, self.name)
        try:
            check_options(self.name, self.options)
        except BadValue as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class HalvingSpec(Section):
    """Asynchronous successive halving: runs are judged at rungs, and most end there (001 sec. 4.3.3)."""

    form: str = "stopping"
    first: Positive = 1
    """Epochs to the first rung."""
    reduction: Annotated[Whole, Field(ge=2)] = 2
    """One in so many goes on; each rung is as many times later than the one before."""

    @model_validator(mode="after")
    def _known(self) -> HalvingSpec:
        known_in(halvings, self.form)
        return self


class TransferSpec(Section):
    """A vector found elsewhere, tried first."""

    vector: tuple[Density, ...]
    source: str = ""
    """Where it was found, for people."""


class SearchSpec(Section):
    """A search over layer densities: which of them make the best network."""

    kind: Literal["search"] = "search"
    title: str = "Search over layer densities"
    description: str = ""
    base: Mapping[str, Any] = {}
    """Sections of a run that all trials share; their masks are random, of the densities that are tried."""
    sampler: Annotated[SamplerSpec, BeforeValidator(_named)] = SamplerSpec()
    samples: Positive = 50
    uniform: bool = False
    """One density for all layers, instead of one for each."""
    low: Density = 0.001
    high: Density = 1.0
    """Bounds of a layer's density."""
    max_density: Density | None = None
    """Bound of all layers' together, in active weights."""
    objective: Literal["accuracy", "pareto"] = "accuracy"
    """What is looked for: the highest score, or the best for every number of active weights."""
    score: Literal["val", "test"] = "val"
    """The split whose accuracy is the score; the paper's protocol is test."""
    halving: HalvingSpec | None = None
    transfer: TransferSpec | None = None
    seed: Annotated[Whole, Field(ge=0)] = 0
    """Of the search: of the vectors that are tried, and (from 1000 on) of the runs that try them."""
    seeds: Seeds = 5
    """Of the runs after the search that tell what was found."""
    cross: Mapping[str, Axis] = {}
    """Axes whose every combination is a search: fields of this specification (`base.model.depth: [2, 4]`, `seed:`)."""
    rivals: Mapping[str, Entry] = {}
    """Masks found otherwise, which have the winner's number of active weights: changes of the base."""
    statistics: ArmStatistics = ArmStatistics()

    @model_validator(mode="after")
    def _coherent(self) -> SearchSpec:
        if taken := sorted(set(self.rivals) & set(OWN_ARMS)):
            raise ValueError(f"rivals.{taken[0]}: a search has an arm of that name itself; take another")
        if crossed := [name for name, entry in self.rivals.items() if entry.grid]:
            raise ValueError(f"rivals.{crossed[0]}.grid: a rival has one setting; take cross for several rivals")
        if others := sorted(set(self._base_mask) - set(_BASE_MASK)):
            raise ValueError(
                f"base.mask.{others[0]}: the search sets the masks; of base.mask it takes {', '.join(_BASE_MASK)} alone"
            )
        if self.trial_seed in self.run_seeds:
            raise ValueError(f"seeds: {self.trial_seed} is the seed of the search's own runs; take others")
        if self.halving is not None and self.objective == "pareto":
            raise ValueError(
                "halving judges by the score alone and would stop small networks; objective = pareto goes without it"
            )
        if self.halving is not None and self.halving.first >= self.epochs:
            raise ValueError(
                f"halving.first: the first rung, after {self.halving.first} epochs, is not within the training's "
                f"{self.epochs}"
            )
        return self

    @property
    def _base_mask(self) -> Mapping[str, Any]:
        mask = self.base.get("mask")
        return mask if isinstance(mask, Mapping) else {}

    @property
    def epochs(self) -> int:
        train = self.base.get("train")
        given = train.get("epochs") if isinstance(train, Mapping) else None
        return given if isinstance(given, int) else RunSpec().train.epochs

    @property
    def trial_seed(self) -> int:
        return FIRST_TRIAL_SEED + self.seed

    @property
    def run_seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    @property
    def rungs(self) -> Rungs | None:
        if self.halving is None:
            return None
        return Rungs(self.halving.first, self.epochs, self.halving.reduction)

    def trial(self, vector: tuple[float, ...], layers: int) -> RunSpec:
        """The run that tries a vector.

        Raises:
            BadSpec: listing every mistake of the base.
        """
        densities = list(vector) * layers if self.uniform else list(vector)
        content = overlay(self.base, {"mask": {"densities": densities}})
        if "seed" in content:
            raise BadSpec(["base.seed: leave it out; `seed` and `seeds` name the seeds"])
        try:
            run = validate(RunSpec, {**content, "seed": self.trial_seed})
        except BadSpec as error:
            raise BadSpec(f"base.{problem}" for problem in error.problems) from None
        if self.score == "val" and run.data.val_fraction == 0:
            raise BadSpec(
                [
                    "score: a search needs a validation split to choose by: set base.data.val_fraction, say 0.1, or "
                    "score = test to choose on the test set, as the paper does"
                ]
            )
        return run

    def plain(self) -> RunSpec:
        """A run of the base with all its weights, which tells of what the space is made.

        Raises:
            BadSpec: listing every mistake of the base.
        """
        try:
            return validate(RunSpec, overlay(self.base, {"mask": {"density": 1.0}}))
        except BadSpec as error:
            raise BadSpec(f"base.{problem}" for problem in error.problems) from None

    def space(self, facts: DataFacts) -> Space:
        """Of the base's network on this data.

        Raises:
            BadSpec: for bounds that no vector obeys, or a network without layers to mask.
        """
        sizes = masked_sizes(self.plain(), facts.input_shape, facts.classes)
        try:
            return Space(sizes, self.uniform, self.low, self.high, self.max_density)
        except BadValue as error:
            raise BadSpec([str(error)]) from None

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as the store keeps it."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def study_name(self) -> str:
        """Of what decides which vectors are tried and how; more samples and other rivals go on with the same search."""
        decides = {key: value for key, value in self.changes().items() if key not in _AFTERWARDS}
        return f"search-{content_hash(decides)[:12]}"


def searches(spec: SearchSpec) -> list[tuple[str, SearchSpec]]:
    """Each search of a study, with what sets it apart from the others ("depth 2, sampler bayes").

    Raises:
        BadSpec: listing the mistakes of every combination, or searches that are the same.
    """
    if twice := set_twice(spec.cross):
        raise BadSpec([f"cross: two axes set {field}" for field in twice])
    content = spec.model_dump(mode="json", exclude_defaults=True, exclude={"cross"})
    found: list[tuple[str, SearchSpec]] = []
    problems: dict[str, None] = {}
    for cell in combined(spec.cross):
        label = ", ".join(_level(spec.cross[axis], axis, level) for axis, level in cell.levels.items())
        try:
            one = validate(SearchSpec, overlay(content, cell.changes))
        except BadSpec as error:
            problems |= dict.fromkeys(f"cross ({label}): {problem}" for problem in error.problems)
            continue
        if same := next((name for name, other in found if other.study_name == one.study_name), None):
            problems[f"cross: {same} and {label} are the same search"] = None
        found.append((label, one))
    if problems:
        raise BadSpec(problems)
    return found


def _level(axis: Any, name: str, level: str) -> str:
    """A level as a person says it: a label stands for itself, a value needs its field."""
    return level if isinstance(axis, Mapping) else f"{name.rpartition('.')[2]} {level}"


_AFTERWARDS = ("title", "description", "samples", "seeds", "rivals", "statistics")
