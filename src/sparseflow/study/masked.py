"""The part of a specification that says which weights are active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sparseflow.core import BadValue
from sparseflow.masks import Gradual, budgets, check_options, criteria, matching_rules, rounds_to
from sparseflow.study.fields import Density, Positive, Section, Share, Whole, fraction, known_in

SOURCES = ("twin_width", "density", "densities", "file", "lottery", "inherited")
"""Fields that say what the masks are; one of them, but that a lottery may have a density to end at."""


class GradualSpec(Section):
    """Gradual magnitude pruning during training: from a dense network to the mask's density (`masks.Gradual`)."""

    start: Annotated[Whole, Field(ge=0)]
    """Optimiser step of the first pruning."""
    end: Whole
    """Optimiser step of the last one, which reaches the density."""
    every: Positive = 100
    """Steps between two prunings."""

    @model_validator(mode="after")
    def _coherent(self) -> GradualSpec:
        try:
            self.schedule()
        except BadValue as error:
            raise ValueError(str(error)) from None
        return self

    def schedule(self) -> Gradual:
        return Gradual(self.start, self.end, self.every)


class LotterySpec(Section):
    """A round of iterative magnitude pruning with rewinding (`masks.next_round`).

    Round 0 is the dense training; each later round trains what is left of the one before it.
    """

    round: Annotated[Whole, Field(ge=0)]
    fraction: Share = 0.2
    """Part of the active weights that a round removes."""
    layerwise: bool = False
    """Remove it from each layer instead of from all together."""
    rewind_step: Annotated[Whole, Field(ge=0)] = 0
    """Weights go back to what they were after so many steps of round 0; schedule and data order go on from there."""
    weights: Literal["rewound", "fresh"] = "rewound"
    """Or: the round's mask with a new initial draw, trained from step 0."""


class InheritedSpec(Section):
    """The mask that another run ended with, whatever found it."""

    run: Mapping[str, Any]
    """That run: its fields that differ from the defaults. In a study of arms also the name of an arm."""
    seed: Annotated[Whole, Field(ge=0)] | None = None
    """That run's seed; this run's by default."""
    weights: Literal["fresh", "rewound", "final"] = "fresh"
    """Start from a new draw, from that run's weights of an early step, or from its last ones."""
    rewind_step: Annotated[Whole, Field(ge=0)] = 0
    """The step whose weights are rewound to; schedule and data order go on from there."""

    @model_validator(mode="after")
    def _coherent(self) -> InheritedSpec:
        if self.weights != "rewound" and self.rewind_step:
            raise ValueError("rewind_step needs weights = rewound")
        return self


class MaskSpec(Section):
    """Which weights are active; none given, the network is dense."""

    twin_width: Positive | None = None
    """Match the dense network of this width, layer by layer."""
    matching: str = "active-weights"
    density: Density | None = None
    """Or: this part of all weights that may be pruned."""
    densities: tuple[Density, ...] | None = None
    """Or: a density for each layer, in the model's order."""
    file: str | None = None
    """Or: the masks in this file (`sparseflow prune`, `masks.save`)."""
    digest: str | None = None
    """Of the masks in the file, so that other masks are another run."""
    lottery: LotterySpec | None = None
    """Or: those of a round of iterative pruning; the density, if there is one, is where the rounds end."""
    inherited: InheritedSpec | None = None
    """Or: those that another run ended with."""
    gradual: GradualSpec | None = None
    """Reach the density during training."""
    criterion: str = "random"
    """What decides which weights stay, at the start of training."""
    budget: str | None = None
    """How the density is shared among layers; the criterion's own by default, uniform for `gradual`."""
    rounds: Positive | None = None
    """Score and prune in so many rounds; the criterion's own number by default."""
    examples: Annotated[Whole, Field(ge=2)] = 128
    """Training examples to score on, as many of each class, in batches of the training's size."""
    mode: Literal["train", "eval"] | None = None
    """The network's mode while scoring; the criterion's own by default."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The criterion's and the budget's own."""
    exclude: tuple[str, ...] = ()
    """Patterns of weights that are not pruned and do not count in the density."""
    dense: tuple[str, ...] = ()
    """Patterns of weights that keep all their entries and count in the density."""
    empty: Literal["one", "error", "allow"] = "one"
    """What becomes of a layer that would be left without a weight."""
    shuffle: bool = False
    """Move the active weights to random places of their layers (random tickets)."""
    execution: Literal["auto", "masked", "compact"] = "auto"

    @field_validator("matching")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_in(matching_rules, name)

    @field_validator("criterion")
    @classmethod
    def _known_criterion(cls, name: str) -> str:
        return known_in(criteria, name)

    @field_validator("budget")
    @classmethod
    def _known_budget(cls, name: str | None) -> str | None:
        return None if name is None else known_in(budgets, name)

    @field_validator("density")
    @classmethod
    def _in_range(cls, density: float | None) -> float | None:
        return None if density is None else fraction("density", density)

    @field_validator("densities")
    @classmethod
    def _each_in_range(cls, densities: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if densities is None else tuple(fraction("a density", density) for density in densities)

    @model_validator(mode="before")
    @classmethod
    def _without_distant_target(cls, content: Any) -> Any:
        """A round of the lottery that the target does not reach is the same run whatever the target is."""
        if not isinstance(content, dict) or content.get("density") is None or content.get("lottery") is None:
            return content
        try:
            lottery, density = LotterySpec.model_validate(content["lottery"]), float(content["density"])
            last = rounds_to(density, lottery.fraction)
        except (TypeError, ValueError):
            return content  # the fields' own checks say what is wrong
        distant = ("density", "budget") if lottery.round < last else ()
        return {name: value for name, value in content.items() if name not in distant}

    @model_validator(mode="after")
    def _coherent(self) -> MaskSpec:
        given = [n for n in SOURCES if getattr(self, n) is not None]
        if len(given) > 1 and given != ["density", "lottery"]:
            raise ValueError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
        self._check_lottery()
        self._check_dependents()
        try:
            check_options(self.criterion, self.budget_name, self.options)
        except BadValue as error:
            raise ValueError(f"options: {error}") from None
        return self

    def _check_lottery(self) -> None:
        if self.lottery is None:
            return
        if self.gradual is not None or self.criterion != "random":
            raise ValueError("lottery finds its own masks; leave out gradual and criterion")
        if self.density is not None and self.lottery.round > (last := rounds_to(self.density, self.lottery.fraction)):
            raise ValueError(f"lottery: density {self.density:g} is reached in round {last}; there is no later one")
        if self.density is not None and budgets.entry(self.budget_name).facts["layerwise"] != self.lottery.layerwise:
            kind = "a layerwise" if self.lottery.layerwise else "the global"
            raise ValueError(f"lottery: rounds over {'each layer' if self.lottery.layerwise else 'all layers'} end at "
                             f"{kind} budget, not at {self.budget_name!r}")  # fmt: skip
        if self.lottery.round == 0 and (self.lottery.weights == "fresh" or self.shuffle):
            raise ValueError("lottery: round 0 is the dense network; fresh weights and shuffle need a later round")

    def _check_dependents(self) -> None:
        """Fields that mean something only beside others."""
        counted = self.density is not None or self.densities is not None
        scored = self.criterion != "random"
        facts = criteria.entry(self.criterion).facts
        from_elsewhere = self.file is not None or self.inherited is not None
        found = counted or self.lottery is not None
        needs = [
            ("criterion", counted, "density or densities"),
            ("digest", self.file is not None, "file"),
            ("budget", self.density is not None, "density"),
            ("gradual", counted and not scored, "density, and no criterion: it prunes by magnitude"),
            ("rounds", facts["runs_model"], "a criterion whose scores change from round to round"),
            ("examples", facts["needs_batches"], "a criterion that looks at examples"),
            ("mode", facts["runs_model"], "a criterion that runs the network"),
            ("options", counted, "density"),
            ("exclude", found, "density or lottery"),
            ("dense", found, "density or lottery"),
            ("empty", found, "density or lottery"),
            ("shuffle", from_elsewhere or self.lottery is not None or (scored and self.gradual is None),
             "a mask with structure: file, lottery, inherited or a criterion other than random"),
        ]  # fmt: skip
        for name, met, what in needs:
            if not met and getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name} {getattr(self, name)!r} needs {what}")
        if self.budget == "vector":
            raise ValueError("budget 'vector' needs densities, one for each layer")
        if self.gradual is not None and self.execution == "compact":
            raise ValueError("gradual prunes layers that are dense at first; execution must be masked (or auto)")

    @property
    def sparse(self) -> bool:
        """Whether some weights are inactive at the end."""
        if self.lottery is not None:
            return self.lottery.round > 0
        return any(getattr(self, name) is not None for name in SOURCES)

    @property
    def drawn(self) -> bool:
        """Whether the mask is a random one with its own number for each layer, which needs no network to be found."""
        counted = self.twin_width is not None or self.density is not None or self.densities is not None
        plain = counted and self.lottery is None and self.gradual is None and self.criterion == "random"
        return plain and bool(budgets.entry(self.budget_name).facts["layerwise"])

    @property
    def asked(self) -> float | tuple[float, ...]:
        """The density, or those of the layers, of a mask that has one."""
        found = self.densities if self.densities is not None else self.density
        assert found is not None, "a mask found otherwise"
        return found

    @property
    def budget_name(self) -> str:
        """The budget of the catalog that shares the density."""
        if self.densities is not None:
            return "vector"
        if self.lottery is not None and self.budget is None:
            return "uniform" if self.lottery.layerwise else "global"
        own = "uniform" if self.gradual is not None else criteria.entry(self.criterion).facts["budget"]
        return self.budget or str(own)
