"""What a study of arms says about comparing its finished networks with one of them (004 sec. 4.3)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sparseflow.study.fields import Number, Positive, Section, Share, Whole


class ClaimsSpec(Section):
    """Who plays which part in 004's claims about tickets, and when a claim counts as seen."""

    ticket: str
    """The arm that is claimed to find its way back to the reference."""
    scratch: tuple[str, ...]
    """Arms of the same mask with fresh weights."""
    pruned: str | None = None
    """The arm of other solutions like the reference, whose ensemble is claimed to gain more than the tickets'."""
    alpha: Share = 0.05
    """Level of every test, one-sided; intervals are of 1 - alpha to the side that is claimed."""
    barrier: Annotated[Number, Field(gt=0.0)] = 0.02
    """The rise of the loss along a path, above its higher end and in nats, that counts as a barrier."""

    @field_validator("scratch")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("needs at least one arm")
        return names

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.ticket, *self.scratch, *([self.pruned] if self.pruned is not None else []))


class LikenessSpec(Section):
    """Compare the networks of arms with each other and with one run, when all have ended."""

    reference: str
    """The arm of the network that all are compared with, such as a pruned solution."""
    seed: Annotated[Whole, Field(ge=0)] = 0
    """That network's seed; it may be one that only other runs begin with."""
    arms: tuple[str, ...]
    """A group each, of the networks of all seeds; the reference is left out of its own."""
    examples: Positive = 10_000
    """Test examples that the networks answer, at most."""
    path_examples: Positive = 10_000
    """Training examples, and test examples, that losses along paths are taken on, at most."""
    points: Annotated[Whole, Field(ge=3)] = 21
    """Of a path, both ends among them."""
    batch_norm: Literal["recompute", "keep"] = "keep"
    """Its statistics along paths: taken anew at every point, or interpolated."""
    over: Literal["mean", "sum"] = "mean"
    """How KL and JSD take examples together."""
    claims: ClaimsSpec | None = None
    """Judge 004's claims."""

    @model_validator(mode="after")
    def _coherent(self) -> LikenessSpec:
        if not self.arms:
            raise ValueError("arms: needs at least one arm")
        twice = [name for name in dict.fromkeys(self.arms) if self.arms.count(name) > 1]
        if twice:
            raise ValueError(f"arms: names {twice[0]!r} twice")
        outside = [name for name in self.claims.arms if name not in self.arms] if self.claims else []
        if outside:
            raise ValueError(f"claims: {outside[0]!r} is not among the arms that are compared ({', '.join(self.arms)})")
        parts = self.claims.arms if self.claims else ()
        if len(set(parts)) < len(parts):
            raise ValueError("claims: an arm plays two parts")
        return self

    @property
    def alphas(self) -> tuple[float, ...]:
        # Rounded, so that 0 and 1 are met exactly.
        return tuple(round(k / (self.points - 1), 12) for k in range(self.points))
