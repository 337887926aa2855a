"""After the search: the winner, an ordinary vector, the dense network and the rivals, trained on seeds of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseflow.masks import rounds_to
from sparseflow.search.outcome import Tried, median, winner
from sparseflow.search.space import Space, Vector
from sparseflow.search.spec import SearchSpec
from sparseflow.study import ArmsSpec, RunSpec, arms_of, overlay, validate


def finals(spec: SearchSpec, trials: Sequence[Tried], space: Space) -> ArmsSpec | None:
    """The study of arms that tells what the search found; None before the last trial has ended.

    The winner against the dense network and against an ordinary vector (the one whose score is in the middle), and
    masks found otherwise with the winner's number of active weights. The test set is looked at here alone (unless
    `score` is test), and where a validation split chose, its examples are trained on: there is no choice left to make.
    """
    if len(trials) < spec.samples or any(trial.status == "open" for trial in trials):
        return None
    best = winner(trials)
    return None if best is None else _study(spec, best, trials, space)


def stand_in(spec: SearchSpec, space: Space, number: int = 0) -> ArmsSpec:
    """The same study for two vectors about the middle of the space, while nothing is known: as many runs, as long.

    Args:
        number: of the search; other numbers have other vectors, as other searches will have other winners.
    """
    trials = []
    for k in range(2):
        vector = middle(space, 2 * number + k)
        trials.append(Tried(k, "", vector, "", "finished", float(-k), 0, space.active(vector)))
    return _study(spec, trials[0], trials, space)


def middle(space: Space, number: int = 0) -> Vector:
    """A vector about the middle of a space; each number has its own."""
    return space.project([(space.low + space.high) / 2 - number * 1e-6] * space.dimensions)


def _study(spec: SearchSpec, best: Tried, trials: Sequence[Tried], space: Space) -> ArmsSpec:
    common_one = median(trials)
    common = spec.base.get("mask") or {}

    def masked(trial: Tried) -> dict[str, Any]:
        return {"mask": {**common, "densities": list(space.densities(trial.vector).values())}}

    arms: dict[str, Any] = {"dense": {}, "winner": masked(best)}
    if common_one is not None and common_one.vector != best.vector:
        arms["median"] = masked(common_one)
    first = trials[0]
    if first.origin == "transferred" and first.vector not in (best.vector, common_one.vector if common_one else None):
        arms["transferred"] = masked(first)
    density = space.active(best.vector) / space.total
    for name, entry in spec.rivals.items():
        rival = overlay({"mask": {**common, "density": density}}, entry.model_dump(exclude_defaults=True))
        arms[name] = _in_the_last_round(rival, density)
    shared = {key: value for key, value in spec.base.items() if key != "mask"}
    content = {
        "title": spec.title,
        "base": overlay(shared, {"data": {"val_fraction": 0.0}}),
        "seeds": spec.seeds,
        "versus": "dense",
        "arms": arms,
        "statistics": spec.statistics.model_dump(exclude_defaults=True),
    }
    return validate(ArmsSpec, content)


def _in_the_last_round(rival: dict[str, Any], density: float) -> dict[str, Any]:
    """A lottery's round follows from the density, which is not known before the search has ended."""
    lottery = rival["mask"].get("lottery")
    if lottery is None or "round" in lottery:
        return rival
    own = [lottery["fraction"]] if "fraction" in lottery else []
    return overlay(rival, {"mask": {"lottery": {"round": rounds_to(density, *own)}}})


def final_runs(study: ArmsSpec) -> list[RunSpec]:
    """Of the arms, seed by seed."""
    arms = arms_of(study)
    return [arm.points[0].at(seed) for seed in study.run_seeds for arm in arms]
