"""The part of a specification that says which of ToST's tweaks a training has (003)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sparseflow.core import BadValue
from sparseflow.study.fields import Fraction, Number, Positive, Section
from sparseflow.tost import BETA_MAX, Fade, until

ALL_TWEAKS: Mapping[str, Any] = {"neurons": True, "skips": True, "rescale": {}, "smoothing": 0.1}
"""ToST whole, as 003 trains with it."""

Above = Annotated[Number, Field(gt=0.0)]


class RescaleSpec(Section):
    """Learned rescaling of the start (`init.rescale_`)."""

    iterations: Positive = 180
    gamma: Above = 1.0
    """The largest gradient norm: above it the factors go down the norm, else the loss after a step."""
    scale_lr: Above = 0.01
    """Adam's rate for the factors."""
    bound: Annotated[Number, Field(gt=0.0, le=1.0)] = 0.01
    """The smallest that a factor may be."""


class TostSpec(Section):
    """ToST: ghosts that are gone before the learning rate first decays, a rescaled start, soft labels."""

    neurons: bool = False
    """Ghost neurons: ReLU is PSwish at first (`tost.ghost_neurons_`)."""
    skips: bool = False
    """Ghost skips: every 3x3 convolution's input is added to its output at first (`tost.ghost_skips_`)."""
    rescale: RescaleSpec | None = None
    """Learned rescaling of the start, once the mask is known."""
    smoothing: Fraction = 0.0
    """Label smoothing of the training loss."""
    until: Above | Literal["decay", "never"] = "decay"
    """Epoch at which ghosts are gone; the first milestone of the learning rate, or none."""
    shape: Literal["linear", "cosine", "step", "constant"] = "linear"
    """How they fade until then."""
    stairs: Positive | None = None
    """Of the shape `step`."""
    alpha: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    """Their strength at first."""
    beta_max: Annotated[Number, Field(ge=1.0)] = BETA_MAX
    """Of ghost neurons: the last PSwish before ReLU."""
    shortcut: Literal["pool", "conv"] = "pool"
    """Of ghost skips, where shapes differ: without parameters, or the authors' 1x1 convolution and batch norm."""

    @model_validator(mode="after")
    def _coherent(self) -> TostSpec:
        if not (self.ghosts or self.rescale is not None or self.smoothing):
            raise ValueError("switch on at least one of neurons, skips, rescale and smoothing")
        needs = [
            *((name, self.ghosts, "neurons or skips") for name in ("until", "shape", "stairs", "alpha")),
            ("beta_max", self.neurons, "neurons"),
            ("shortcut", self.skips, "skips"),
        ]
        for name, met, what in needs:
            if not met and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} {getattr(self, name)!r} needs {what}")
        try:
            self.fade(None if self.until == "decay" else self.until, 1, 1e9)
        except BadValue as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def ghosts(self) -> bool:
        return self.neurons or self.skips

    def fade(self, end: float | str | None, steps_per_epoch: int, epochs: float) -> Fade:
        """How the ghosts of a training of so many epochs fade.

        Args:
            end: the epoch at which they are gone, "never", or None where it is not known yet.

        Raises:
            BadValue: for a shape without that end, or an end outside of the training.
        """
        if end == "never":
            return Fade(self.shape, None, self.alpha, self.stairs)
        epoch = 1.0 if end is None else float(end)
        return until(epoch, steps_per_epoch, epochs=epochs, shape=self.shape, alpha=self.alpha, stairs=self.stairs)
