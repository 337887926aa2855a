"""The parts of a specification: data, network, start, optimiser, training, measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from sparseflow.core import BadValue, SparseflowError, UnknownName
from sparseflow.data import check_name, crops, is_decoded
from sparseflow.init import Scheme, initialisations
from sparseflow.models import OF_THE_DATA, activations, check_place, is_imported, models, sketch
from sparseflow.study.fields import Fraction, NonNegative, Number, Positive, Section, Share, Whole, known_in
from sparseflow.train import make_schedule, optimizers, resolve_implementation, schedules


class DataSpec(Section):
    """Which data, and how much of it."""

    name: str = "digits"
    """A data set of the catalog, or a path: ending in .npz, or with a / for a folder of images."""
    train_limit: Positive | None = None
    """Train on this many examples, stratified and the same for every seed."""
    test_limit: Positive | None = None
    """Test on this many examples, likewise."""
    val_fraction: Fraction = 0.0
    """Part of the training examples held out to choose by (seeded, stratified)."""
    augment: bool = False
    """Random crops and, where a mirrored image keeps its class, horizontal flips."""
    crop: str = "pad"
    """Which random crop `augment` draws."""
    scaling: Literal["standard", "unit"] = "standard"
    """Inputs have mean 0 and deviation 1 in each channel or feature, or pixels are between 0 and 1."""
    image_size: Annotated[Whole, Field(ge=4)] | None = None
    """Side in pixels to which the images of a folder are resized; by default as they are, ImageNet's 224."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return check_name(name)
        except UnknownName as error:
            raise ValueError(str(error)) from None

    @field_validator("crop")
    @classmethod
    def _known_crop(cls, name: str) -> str:
        return known_in(crops, name)

    @model_validator(mode="after")
    def _coherent(self) -> DataSpec:
        if self.image_size is not None and not is_decoded(self.name):
            raise ValueError(
                f"image_size is for folders of images (imagenet, tiny-imagenet, a path with a /), not for {self.name!r}"
            )
        return self


class ModelSpec(Section):
    """The network; sizes of the input and of the output follow from the data.

    A field left out holds the model's own default (`models.entry(name).facts["options"]`), and None where the model has
    no such option; giving it there is an error.

    Of the user's own model (`models.imported`) it holds None: its code is not looked at before a network is made, so a
    specification stays valid, and readable, where the code is not. Its factory gets the fields that are given.
    """

    name: str = "mlp"
    """Of the catalog, or package.module:factory, or file.py:factory for one's own."""
    options: dict[str, Any] | None = None
    """Arguments of one's own model that are none of the fields below."""
    depth: Positive | None = None
    """Hidden layers of mlp; layers as the paper of a ResNet counts them."""
    width: Positive | None = None
    """Units or channels of the first layer or stage; None for mlp's input size + 4 (001 sec. 3.2.1)."""
    widths: tuple[Positive, ...] | None = None
    """Of every hidden layer of a LeNet, in place of `width`."""
    padding: Whole | None = None
    """Pixels of zeros on every side of LeNet-5's images."""
    activation: str | None = None
    norm: Literal["none", "batch", "layer"] | None = None
    norm_affine: bool | None = None
    skip: bool | None = None
    shortcut: Literal["pad", "conv"] | None = None
    """Where a block changes the shape: zeros for new channels, or a 1x1 convolution."""
    stem: Literal["cifar", "imagenet"] | None = None
    """The beginning for small images, or the one that shrinks large ones."""
    dropout: Fraction | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if not is_imported(name):
            return known_in(models, name, also="or your own as package.module:Net or ./file.py:Net")
        try:
            return check_place(name)
        except BadValue as error:
            raise ValueError(str(error)) from None

    @field_validator("options")
    @classmethod
    def _as_stored(cls, options: dict[str, Any] | None) -> dict[str, Any] | None:
        """As they come back from the store and reach a worker; none given are none."""
        try:
            stored: dict[str, Any] | None = json.loads(json.dumps(options, allow_nan=False)) or None
        except (TypeError, ValueError):
            raise ValueError(
                f"takes numbers, words, truth values, lists and mappings of these, got {options}"
            ) from None
        return stored

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, name: str | None) -> str | None:
        return name if name is None else known_in(activations, name)

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        name = content.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str) or (name not in models.names and not is_imported(name)):
            return content  # what is wrong with it is the field's own to say
        return {**_own_defaults(name)} | {key: value for key, value in content.items() if value is not None}

    @model_validator(mode="after")
    def _coherent(self) -> ModelSpec:
        if is_imported(self.name):
            for name in self.options or {}:
                if name in _FIELDS:
                    raise ValueError(f"options.{name}: is a field of every model; write model.{name}")
                if name in OF_THE_DATA:
                    raise ValueError(f"options.{name}: follows from the data; leave it out")
            return self
        known = self.arguments()
        if self.options is not None:
            raise ValueError(f"options: are of a model of your own; {self.name!r} has fields ({', '.join(known)})")
        for name in _FIELDS:
            if name not in known and getattr(self, name) is not None:
                raise ValueError(f"model {self.name!r} has no option {name!r} (it has: {', '.join(known) or 'none'})")
        try:
            _try_out(self.name, tuple(known.items()))
        except SparseflowError as error:
            raise ValueError(str(error)) from None
        return self

    @model_serializer(mode="wrap")
    def _changed(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Without defaults means without the model's own, so that writing one out changes no run's name."""
        content: dict[str, Any] = handler(self)
        own = _own_defaults(self.name) if info.exclude_defaults else {}
        return {k: v for k, v in content.items() if k not in own or v != own[k]}

    def arguments(self) -> dict[str, Any]:
        """What the model's constructor is told."""
        if is_imported(self.name):
            given = {name: getattr(self, name) for name in _FIELDS}
            return {name: value for name, value in given.items() if value is not None} | (self.options or {})
        return {name: getattr(self, name) for name in _own_defaults(self.name)}


_FIELDS = tuple(name for name in ModelSpec.model_fields if name not in ("name", "options"))
"""Those that a model's constructor may be told."""


def _own_defaults(name: str) -> Mapping[str, Any]:
    """Option -> default of a model of the catalog; those of one's own are its code's alone."""
    defaults: Mapping[str, Any] = {} if is_imported(name) else models.entry(name).facts["options"]
    return defaults


@lru_cache(maxsize=256)
def _try_out(name: str, options: tuple[tuple[str, Any], ...]) -> None:
    """Raise what the model's constructor has against its options."""
    entry = models.entry(name)
    sketch(name, entry.facts["example"], 2, **dict(options))


class InitSpec(Section):
    """The distribution of the initial active weights."""

    scheme: Literal["he", "glorot"] = "he"
    distribution: Literal["normal", "uniform"] = "normal"
    fan: Literal["in", "out", "average"] | None = None
    """He takes fan-in and Glorot the average unless said otherwise."""
    method: str = "dense"
    """From which deviation the active weights are drawn: the dense layer's, one scaled for the layer, or by the fans
    that each neuron has in the mask."""
    fans: Literal["twin", "own"] | None = None
    """Whose fans: the dense twin's (the default where there is one) or the layer's own."""
    seed: Annotated[Whole, Field(ge=0)] | None = None
    """Draw by this seed and not by the run's: runs of many seeds then share one start."""

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_in(initialisations, name)

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
        return known_in(schedules, name)

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
        return known_in(optimizers, name)

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
    train_accuracy: bool = False
    """Accuracy on the probe's examples in evaluation mode, at the same points (001 Fig. 4.4b)."""
    activations: bool = False
    """The share of zeros in every activation's output (003 Table 1), at the same points."""
    eigenvalues: Annotated[Whole, Field(ge=0)] = 0
    """So many of the largest and of the smallest eigenvalues of the loss's Hessian over active weights."""
