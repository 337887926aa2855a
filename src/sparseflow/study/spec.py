"""A run is a frozen specification; its name is a hash of the fields that differ from the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sparseflow.core import BadValue, Catalog, UnknownName, check_fraction
from sparseflow.data import datasets
from sparseflow.init import Scheme
from sparseflow.masks import matching_rules
from sparseflow.models import activations, models
from sparseflow.train import make_schedule, optimizers, resolve_implementation, schedules


class Section(BaseModel):
    """A frozen group of fields; a field that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _in(catalog: Catalog[Any], name: str, also: str = "") -> str:
    if name not in catalog:
        raise ValueError(str(UnknownName(catalog.kind, name, catalog.names, also=also)))
    return name


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError(f"expected a number, got {value!r}")
    return value


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(ge=1)]
NonNegative = Annotated[Number, Field(ge=0.0)]
Fraction = Annotated[Number, Field(ge=0.0, lt=1.0)]
Share = Annotated[Number, Field(gt=0.0, lt=1.0)]


class DataSpec(Section):
    """Which data, and how much of it."""

    name: str = "digits"
    """A data set of the catalog, or the path of an .npz file."""
    train_limit: Positive | None = None
    """Train on this many examples, stratified and the same for every seed."""
    val_fraction: Fraction = 0.0
    """Part of the training examples held out to choose by (seeded, stratified)."""
    augment: bool = False
    """Random crop with padding 4 and, where a mirrored image keeps its class, horizontal flip."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if name.endswith(".npz") else _in(datasets, name, "or a path ending in .npz")


class ModelSpec(Section):
    """The network; sizes of the input and of the output follow from the data."""

    name: str = "mlp"
    depth: Positive = 4
    """Hidden layers."""
    width: Positive | None = None
    """Units of a hidden layer; by default input size + 4 (001 sec. 3.2.1)."""
    activation: str = "relu"
    norm: Literal["none", "batch", "layer"] = "none"
    norm_affine: bool = True
    skip: bool = False
    dropout: Fraction = 0.0

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _in(models, name)

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, name: str) -> str:
        return _in(activations, name)

    @model_validator(mode="after")
    def _coherent(self) -> ModelSpec:
        if self.skip and self.depth < 3:
            raise ValueError(f"skip connections span two hidden layers and need depth >= 3, got {self.depth}")
        return self


class MaskSpec(Section):
    """Which weights are active; none given, the network is dense."""

    twin_width: Positive | None = None
    """Match the dense network of this width, layer by layer."""
    matching: str = "active-weights"
    density: Annotated[float, BeforeValidator(_no_truth_value)] | None = None
    """Or: this density in every layer."""
    execution: Literal["auto", "masked", "compact"] = "auto"

    @field_validator("matching")
    @classmethod
    def _known(cls, name: str) -> str:
        return _in(matching_rules, name)

    @field_validator("density")
    @classmethod
    def _in_range(cls, density: float | None) -> float | None:
        try:
            return None if density is None else check_fraction("density", density)
        except BadValue as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _coherent(self) -> MaskSpec:
        if self.twin_width is not None and self.density is not None:
            raise ValueError("give twin_width or density, not both")
        return self

    @property
    def sparse(self) -> bool:
        return self.twin_width is not None or self.density is not None


class InitSpec(Section):
    """The distribution of the initial active weights."""

    scheme: Literal["he", "glorot"] = "he"
    distribution: Literal["normal", "uniform"] = "normal"
    fan: Literal["in", "out", "average"] | None = None
    """He takes fan-in and Glorot the average unless said otherwise."""
    fans: Literal["twin", "own"] | None = None
    """Whose fans: the dense twin's (the default where there is one) or the layer's own."""

    def scheme_object(self) -> Scheme:
        return Scheme(self.scheme, self.distribution, self.fan)


class ScheduleSpec(Section):
    """The learning rate over training."""

    name: str = "constant"
    milestones: tuple[Annotated[Number, Field(gt=0.0)], ...] | None = None
    """Epochs after which `step` multiplies by gamma."""
    gamma: Annotated[Number, Field(gt=0.0, le=1.0)] | None = None
    final: Annotated[Number, Field(ge=0.0, le=1.0)] | None = None
    """What part of the rate `cosine` ends at."""
    warmup_epochs: NonNegative = 0.0

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _in(schedules, name)

    def options(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in (("milestones", self.milestones), ("gamma", self.gamma), ("final", self.final))
            if v is not None
        }

    @model_validator(mode="after")
    def _coherent(self) -> ScheduleSpec:
        try:
            make_schedule(self.name, 1, 1, warmup_epochs=self.warmup_epochs, **self.options())
        except BadValue as error:
            raise ValueError(str(error)) from None
        return self


class OptimizerSpec(Section):
    """The optimiser and its penalty."""

    name: str = "momentum"
    lr: Annotated[Number, Field(gt=0.0)] = 0.001
    weight_decay: NonNegative = 0.0
    """Coupled (an L2 penalty) for all but adamw, decoupled there."""
    decay_others: bool = True
    """Whether biases and the parameters of normalisation and activations decay too."""
    l1: NonNegative = 0.0
    """L1 penalty on the active weights."""
    momentum: Share | None = None
    smoothing: Share | None = None
    beta1: Fraction | None = None
    beta2: Fraction | None = None
    eps: Annotated[Number, Field(gt=0.0)] | None = None
    implementation: Literal["auto", "plain", "foreach", "fused"] = "auto"
    schedule: ScheduleSpec = ScheduleSpec()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return _in(optimizers, name)

    def options(self) -> dict[str, float]:
        every = {name: getattr(self, name) for name in ("momentum", "smoothing", "beta1", "beta2", "eps")}
        return {name: value for name, value in every.items() if value is not None}

    @model_validator(mode="after")
    def _coherent(self) -> OptimizerSpec:
        known = optimizers.entry(self.name).facts["options"]
        for option in self.options():
            if option not in known:
                raise ValueError(
                    f"optimizer {self.name!r} has no option {option!r} (it has: {', '.join(known) or 'none'})"
                )
        try:
            resolve_implementation(self.name, self.implementation)
        except BadValue as error:
            raise ValueError(str(error)) from None
        return self


class TrainSpec(Section):
    """How long and in which batches."""

    epochs: Positive = 50
    batch_size: Annotated[Whole, Field(ge=2)] = 128
    dtype: Literal["float32", "float64"] = "float32"
    eval_every: Annotated[Whole, Field(ge=0)] = 1
    """Evaluate after every so many epochs (0: only at the measuring points and at the end)."""
    stack: Literal["auto", "never"] = "auto"
    """Train small networks stacked: several runs of one shape in one program. Who shares it changes no result."""


class MeasureSpec(Section):
    """What is measured along the training."""

    points: Annotated[Whole, Field(ge=0)] = 11
    """The end of the first epoch and of each (points - 1)-th part of the training."""
    gradient_flow: bool = True
    probe_size: Annotated[Whole, Field(ge=2)] = 1024
    average: Literal["gradient", "norms"] = "gradient"
    batch_norm: Literal["train", "eval"] = "train"
    others: bool = False
    per_weight: bool = False


class RunSpec(Section):
    """Everything that determines the numbers of one training."""

    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    mask: MaskSpec = MaskSpec()
    init: InitSpec = InitSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    train: TrainSpec = TrainSpec()
    measure: MeasureSpec = MeasureSpec()
    seed: Annotated[Whole, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _coherent(self) -> RunSpec:
        self._check_together()
        return self

    def _check_together(self) -> None:
        """What fields of several sections must agree on."""
        if not self.model.norm_affine and self.model.norm == "none":
            raise ValueError("model.norm_affine = false needs a norm; set model.norm to batch or layer")
        if self.init.fans == "twin" and self.mask.twin_width is None:
            raise ValueError("init.fans = 'twin' needs mask.twin_width")
        if self.mask.twin_width is None and self.mask.matching != "active-weights":
            raise ValueError("mask.matching needs mask.twin_width")
        if not self.mask.sparse and self.mask.execution != "auto":
            raise ValueError(
                f"mask.execution {self.mask.execution!r} needs a mask: set mask.twin_width or mask.density"
            )

    def changes(self) -> dict[str, Any]:
        """The fields that differ from the defaults, nested; a default added later leaves this as it is."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def name(self) -> str:
        """16 hex digits that name the run: SHA-256 of `changes` as canonical JSON."""
        return content_hash(self.changes())[:16]


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256, in hex digits, of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
