"""A run is a frozen specification; its name is a hash of the fields that differ from the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from sparseflow.core import BadSpec
from sparseflow.study.fields import Section, Whole
from sparseflow.study.masked import MaskSpec
from sparseflow.study.read import validate
from sparseflow.study.rewired import RewireSpec
from sparseflow.study.sections import DataSpec, InitSpec, MeasureSpec, ModelSpec, OptimizerSpec, TrainSpec
from sparseflow.study.tosted import TostSpec


class RunSpec(Section):
    """Everything that determines the numbers of one training."""

    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    mask: MaskSpec = MaskSpec()
    rewire: RewireSpec | None = None
    """Change the masks during training."""
    tost: TostSpec | None = None
    """Tweaks that help a sparse network to train."""
    init: InitSpec = InitSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    train: TrainSpec = TrainSpec()
    measure: MeasureSpec = MeasureSpec()
    seed: Annotated[Whole, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_writing(cls, content: Any) -> Any:
        """However the run that a mask is inherited from was written, its fields stand for the same run."""
        if not isinstance(content, Mapping) or not isinstance(mask := content.get("mask"), Mapping):
            return content
        inherited = mask.get("inherited")
        if not isinstance(inherited, Mapping) or not isinstance(written := inherited.get("run"), Mapping):
            return content
        if "seed" in written:
            raise ValueError("mask.inherited.run.seed: leave it out; mask.inherited.seed names that run's seed")
        try:
            run = validate(RunSpec, written)
        except BadSpec as error:
            raise ValueError("; ".join(f"mask.inherited.run.{problem}" for problem in error.problems)) from None
        if not run.mask.sparse:
            raise ValueError("mask.inherited.run: that run is dense: it has no mask to inherit")
        if inherited.get("weights") == "rewound" and run.tost is not None and run.tost.shortcut == "conv":
            raise ValueError("mask.inherited.run: its tost.shortcut = 'conv' has weights that cannot be rewound to")
        return {**content, "mask": {**mask, "inherited": {**inherited, "run": run.changes()}}}

    @model_validator(mode="after")
    def _coherent(self) -> RunSpec:
        self._check_together()
        return self

    def _check_together(self) -> None:
        """What a run's fields must agree on; a comparison's variants set some of them."""
        if self.data.crop != "pad" and not self.data.augment:
            raise ValueError(f"data.crop {self.data.crop!r} needs data.augment = true")
        if self.model.norm_affine is False and self.model.norm == "none":
            raise ValueError("model.norm_affine = false needs a norm; set model.norm to batch or layer")
        masked = self.mask.sparse or self.mask.lottery is not None
        if not masked and self.mask.execution != "auto":
            raise ValueError(
                f"mask.execution {self.mask.execution!r} needs a mask: set mask.twin_width, density, file, lottery or "
                "inherited"
            )
        if self.rewire is not None and (not self.mask.sparse or self.mask.gradual is not None):
            raise ValueError("rewire needs a mask that training starts with (mask.density ...), and no mask.gradual")
        if self.init.fans == "twin" and self.mask.twin_width is None:
            raise ValueError("init.fans = 'twin' needs mask.twin_width")
        if self.mask.twin_width is not None and self.init.fans != "own" and self.init.method != "dense":
            raise ValueError("init.method needs init.fans = 'own' where mask.twin_width gives the twin's fans")
        if self.mask.twin_width is None and self.mask.matching != "active-weights":
            raise ValueError("mask.matching needs mask.twin_width")
        if self.tost is not None and self.tost.ghosts:
            self._check_ghosts(self.tost)

    def _check_ghosts(self, tost: TostSpec) -> None:
        end = self.ghosts_end
        if end is None:
            raise ValueError(
                "tost.until = 'decay' needs a learning rate that decays within the training: set optimizer.schedule to "
                "step with milestones, or tost.until to an epoch"
            )
        if end != "never" and float(end) > self.train.epochs:
            raise ValueError(f"tost.until: epoch {float(end):g} is past the training's {self.train.epochs} epochs")
        if tost.shortcut == "conv" and self.mask.lottery is not None:
            raise ValueError("tost.shortcut = 'conv' has weights that a lottery's rounds cannot go back to; take pool")

    @property
    def ghosts_end(self) -> float | str | None:
        """The epoch at which ghosts are gone, or "never"; None where they would wait for a decay that does not come."""
        if self.tost is None or self.tost.until != "decay":
            return self.tost.until if self.tost is not None else None
        milestones = [m for m in self.optimizer.schedule.milestones or () if m <= self.train.epochs]
        return min(milestones) if milestones else None

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
