"""Learning-rate schedules: the factor on the base rate as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, pi

from sparseflow.core import BadValue, Catalog

Schedule = Callable[[int], float]
"""Optimiser step (from 0) -> factor on the base learning rate."""

schedules: Catalog[Callable[..., Schedule]] = Catalog("schedule")
"""name -> maker (total_steps, steps_per_epoch, **options). Fact `options`: the option names it takes."""


@schedules.add("constant", cite="standard", options=())
def constant(total_steps: int, steps_per_epoch: int) -> Schedule:
    """The base rate throughout."""
    return lambda step: 1.0


@schedules.add("step", cite="standard", options=("milestones", "gamma"))
def step_decay(
    total_steps: int, steps_per_epoch: int, *, milestones: Sequence[float] = (), gamma: float = 0.1
) -> Schedule:
    """Times gamma at the end of each milestone (in epochs)."""
    if not milestones:
        raise BadValue("schedule 'step' needs milestones, in epochs, e.g. [90, 135]")
    edges = [milestone * steps_per_epoch for milestone in milestones]
    return lambda step: gamma ** sum(step >= edge for edge in edges)


@schedules.add("cosine", cite="Loshchilov & Hutter 2016, arXiv:1608.03983", options=("final",))
def cosine(total_steps: int, steps_per_epoch: int, *, final: float = 0.0) -> Schedule:
    """Half a cosine from the base rate to `final` times it."""
    return lambda step: final + (1 - final) * (1 + cos(pi * step / total_steps)) / 2


def with_warmup(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Linear warm-up: step t of the first `warmup_steps` takes (t + 1) / warmup_steps of the scheduled rate."""
    if warmup_steps <= 0:
        return schedule
    return lambda step: schedule(step) * min(1.0, (step + 1) / warmup_steps)


def make_schedule(
    name: str, total_steps: int, steps_per_epoch: int, *, warmup_epochs: float = 0.0, **options: object
) -> Schedule:
    """A schedule from the catalog, with warm-up.

    Raises:
        UnknownName: for a schedule that is not in the catalog.
        BadValue: for an option that the schedule does not have.
    """
    entry = schedules.entry(name)
    for option in options:
        if option not in entry.facts["options"]:
            known = ", ".join(entry.facts["options"]) or "none"
            raise BadValue(f"schedule {name!r} has no option {option!r} (it has: {known})")
    return with_warmup(entry.make(total_steps, steps_per_epoch, **options), round(warmup_epochs * steps_per_epoch))
