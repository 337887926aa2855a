"""The capacity-matched comparison (SC-SDC): from its specification to pairs of runs (001 sec. 3.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, field_validator

from sparseflow.core import BadSpec, SparseflowError, UnknownName
from sparseflow.models import activations, is_imported, maximum_width
from sparseflow.study.fields import Number, Positive, Section, Whole
from sparseflow.study.read import leaves, validate
from sparseflow.study.sections import OptimizerSpec
from sparseflow.study.spec import RunSpec, content_hash
from sparseflow.study.variants import Strengths, parts, variant
from sparseflow.train import optimizers

MOST_PAIRS = 500
"""The exact test's limit (`stats.wilcoxon`)."""

Width = Whole | Annotated[Number, Field(gt=0.0)]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AS_CODED = "as coded"
"""The activation of a model of one's own that is not told any."""


class Grid(Section):
    """What the comparison varies: every combination is a cell, every cell has widths x seeds pairs."""

    dense_widths: tuple[Width, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Widths of the dense twins: whole numbers (1 is one unit), or parts of the maximum width (1.0 is all), rounded."""
    seeds: Positive = 3
    optimizers: tuple[Annotated[dict[str, Any], BeforeValidator(_named)], ...] = ()
    """Optimiser sections laid over the study's own; a bare name keeps its other fields. None: the study's own."""
    variants: tuple[str, ...] = ("NR",)
    activations: tuple[str, ...] = ()
    """None: the model's own."""
    strengths: Strengths = Strengths()

    @field_validator("activations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in activations:
                raise ValueError(str(UnknownName("activation", name, activations.names)))
        return names

    @field_validator("dense_widths", "variants")
    @classmethod
    def _not_empty(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:
            raise ValueError("needs at least one entry")
        return values

    @field_validator("dense_widths", "variants", "activations")
    @classmethod
    def _no_twice(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("names an entry twice")
        return values


class Statistics(Section):
    """How the pairs are judged."""

    zeros: Literal["pratt", "drop"] = "pratt"
    alpha: Annotated[Number, Field(gt=0.0, lt=0.5)] = 0.05
    confidence: Annotated[Number, Field(gt=0.0, lt=1.0)] = 0.95
    diverged: Literal["chance", "nan"] = "chance"
    """A diverged run counts as chance accuracy, or takes its pair out of the test; the number of them is shown."""


class CompareSpec(RunSpec):
    """A comparison: the sections of a run, which all its runs share, and what it varies."""

    title: str = "Sparse against dense at equal capacity"
    compare: Grid = Grid()
    statistics: Statistics = Statistics()

    def _check_together(self) -> None:
        """Variants set the norm and pairs the mask, so only each run can be checked whole."""
        if self.mask.sparse:
            raise ValueError("a comparison sets twin_width itself; leave mask.twin_width and mask.density out")
        if self.model.width is None and is_imported(self.model.name):
            raise ValueError(
                f"a comparison of pairs varies the width, and that of {self.model.name} is only known to its code: set "
                "model.width"
            )

    @property
    def study_name(self) -> str:
        """Names the study as `RunSpec.name` names a run."""
        return f"compare-{content_hash(self.changes())[:12]}"


@dataclass(frozen=True)
class Pair:
    """Two runs that differ in connectivity alone."""

    dense_width: int
    seed: int
    sparse: RunSpec
    dense: RunSpec

    def members(self) -> tuple[tuple[str, RunSpec], tuple[str, RunSpec]]:
        return ("sparse", self.sparse), ("dense", self.dense)


@dataclass(frozen=True)
class Cell:
    """One combination of optimiser, variant and activation: a cell of the p-value table."""

    optimizer: str
    variant: str
    activation: str
    pairs: tuple[Pair, ...]

    @property
    def label(self) -> str:
        return f"{self.optimizer} {self.variant} {self.activation}"


def widths_of(spec: CompareSpec, input_size: int) -> list[int]:
    """The dense twins' widths; parts of the maximum width are rounded half up (CIFAR: 308, 923, 1538, 2153, 2768)."""
    widest = spec.model.width or maximum_width(input_size)
    widths = [int(w * widest + 0.5) if isinstance(w, float) else w for w in spec.compare.dense_widths]
    problems = [
        f"compare.dense_widths: {w} is not between 1 and the maximum width {widest}"
        for w in widths
        if not 1 <= w <= widest
    ]
    if len(set(widths)) < len(widths):
        # The same pair twice would count as two independent ones in the test.
        problems.append(f"compare.dense_widths: two entries give the same width ({', '.join(map(str, widths))})")
    if problems:
        raise BadSpec(problems)
    return widths


class HasInputSize(Protocol):
    @property
    def input_size(self) -> int: ...


def cells(spec: CompareSpec, data: HasInputSize) -> list[Cell]:
    """The cells of a comparison, in the order of its table: optimisers, then variants, then activations.

    Args:
        data: a data set, or what is known of one.

    Raises:
        BadSpec: listing every combination that makes no run.
    """
    _check_base(spec)
    widths = widths_of(spec, data.input_size)
    if len(widths) * spec.compare.seeds > MOST_PAIRS:
        raise BadSpec(
            [f"compare: {len(widths)} widths x {spec.compare.seeds} seeds; at most {MOST_PAIRS} pairs per cell"]
        )
    causes: dict[str, list[str]] = {}
    found: list[Cell] = []
    for (label, optimizer), name, activation in product(
        _optimizer_rows(spec), spec.compare.variants, spec.compare.activations or (spec.model.activation or AS_CODED,)
    ):
        try:
            found.append(_cell(spec, widths, label, optimizer, name, activation))
        except BadSpec as error:
            for problem in error.problems:
                causes.setdefault(problem, []).append(f"{label} {name} {activation}")
        except SparseflowError as error:
            causes.setdefault(f"compare.variants: {error}", [])
    for one, other in combinations(found, 2):
        if one.pairs == other.pairs:
            causes[f"compare: {one.label} and {other.label} are the same runs; leave one out"] = []
    if causes:
        raise BadSpec(f"{cause} (cells {', '.join(of)})" if of else cause for cause, of in causes.items())
    return found


def _check_base(spec: CompareSpec) -> None:
    """What variants switch on must be off without them, or their names would not say what was run."""
    given = spec.changes()
    problems = {
        f"{section}.{field} is a variant's: leave it out and name {part.name} in compare.variants"
        for part in parts
        for section, fields in part.make(spec.compare.strengths).items()
        for field, value in fields.items()
        if field in given.get(section, {}) and (field != "norm" or given[section][field] == value)
    }
    if problems:
        raise BadSpec(sorted(problems))


def _optimizer_rows(spec: CompareSpec) -> list[tuple[str, dict[str, Any]]]:
    base = spec.optimizer.model_dump(exclude_defaults=True)
    rows = []
    problems: list[str] = []
    for k, change in enumerate(spec.compare.optimizers or ({},)):
        merged = {**base, **change}
        try:
            rows.append((validate(OptimizerSpec, merged), merged))
        except BadSpec as error:
            problems.extend(f"compare.optimizers.{k}.{p}" for p in error.problems)
    if problems:
        raise BadSpec(problems)
    labels = _labels([o for o, _ in rows])
    if len(set(labels)) < len(labels):
        raise BadSpec(["compare.optimizers: two entries are the same"])
    return [(label, merged) for label, (_, merged) in zip(labels, rows, strict=True)]


def _labels(settings: list[OptimizerSpec]) -> list[str]:
    """The papers' names; entries of one optimiser are told apart by the fields in which they differ."""
    flat = [leaves(o.model_dump()) for o in settings]
    labels = []
    for o, fields in zip(settings, flat, strict=True):
        rivals = [other for other in flat if other["name"] == o.name]
        differing = [key for key, value in fields.items() if any(other.get(key) != value for other in rivals)]
        label = str(optimizers.entry(o.name).facts["label"])
        if o.name == "momentum":
            label += f" ({o.momentum or 0.9:g})"
        shown = [f"{key} {fields[key]}" for key in differing if not (o.name == "momentum" and key == "momentum")]
        labels.append(", ".join([label, *shown]))
    return labels


def _cell(
    spec: CompareSpec, widths: list[int], label: str, optimizer: dict[str, Any], name: str, activation: str
) -> Cell:
    content = spec.model_dump(exclude_defaults=True, exclude={"title", "compare", "statistics"})
    content["optimizer"] = optimizer
    for section, fields in variant(name, spec.compare.strengths).items():
        content[section] = {**content.get(section, {}), **fields}
    chosen = {} if activation == AS_CODED else {"activation": activation}
    content["model"] = {**content.get("model", {}), **chosen}
    if spec.model.model_copy(update=content["model"]).norm == "none":
        content["model"].pop("norm_affine", None)  # says how variants with a norm have it
    if not content.get("data", {}).get("augment"):
        content.get("data", {}).pop("crop", None)  # says how variants with augmentation have it
    pairs = []
    for offset in range(spec.compare.seeds):
        seed = spec.seed + offset
        for width in widths:
            mask = {**content.get("mask", {}), "twin_width": width}
            sparse = validate(RunSpec, {**content, "mask": mask, "seed": seed})
            narrow = {**content, "seed": seed, "model": {**content["model"], "width": width}}
            narrow.pop("mask", None)
            if narrow.get("init", {}).get("fans"):
                # The dense member's own fans are the twin's.
                narrow["init"] = {k: v for k, v in narrow["init"].items() if k != "fans"}
            pairs.append(Pair(width, seed, sparse, validate(RunSpec, narrow)))
    return Cell(label, name, activation, tuple(pairs))


def runs_of(table: list[Cell]) -> Iterator[RunSpec]:
    """Every run once, seed by seed, so that an unfinished study has whole seeds; the members of a pair together."""
    seen: set[str] = set()
    seeds = sorted({pair.seed for cell in table for pair in cell.pairs})
    for seed, cell in product(seeds, table):
        for pair in cell.pairs:
            for _, run in pair.members() if pair.seed == seed else ():
                if run.name not in seen:
                    seen.add(run.name)
                    yield run
