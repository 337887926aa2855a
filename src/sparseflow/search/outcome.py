"""What a search has found so far: its trials with their scores, and the vectors worth another look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import Any

from sparseflow.search.space import Space, Vector
from sparseflow.search.spec import SearchSpec
from sparseflow.study import DONE, Results, Trial


@dataclass(frozen=True)
class Tried:
    """A trial and what came of it.

    Attributes:
        status: of its run: "finished", "diverged", "halted", "failed", or "open".
        score: accuracy on the split that chooses, when the run ended; guessing (1 / classes) for one that diverged; NaN
            for one that failed or has not ended.
        epoch: that the run has reached.
        active: active weights of the whole network, those of layers without a mask too.
    """

    number: int
    run: str
    vector: Vector
    origin: str
    status: str
    score: float
    epoch: int
    active: int

    @property
    def whole(self) -> bool:
        """Whether its run went all its way, so that its score stands beside others'."""
        return self.status in DONE


def tried(spec: SearchSpec, trials: Sequence[Trial], results: Results, space: Space, classes: int) -> list[Tried]:
    """All trials, in the order in which they were proposed."""
    found = []
    for trial in trials:
        result: Mapping[str, Any] = results.get(trial.run, {"status": "open"})
        status = "open" if result["status"] == "stopped" else str(result["status"])
        score = 1.0 / classes if status == "diverged" else nan
        if status in ("finished", "halted"):
            score = float(result["final"].get(f"{spec.score}_accuracy", nan))
        active = sum(result["active"].values()) if result.get("active") else space.active(trial.point)
        found.append(
            Tried(
                trial.number, trial.run, trial.point, trial.origin, status, score, int(result.get("epoch", 0)), active
            )
        )
    return found


def winner(trials: Sequence[Tried]) -> Tried | None:
    """The whole trial of the highest score; of equal ones that with the fewest active weights, then the first."""
    whole = [t for t in trials if t.whole]
    return max(whole, key=lambda t: (t.score, -t.active, -t.number), default=None)


def median(trials: Sequence[Tried]) -> Tried | None:
    """The whole trial whose score is in the middle (the lower of two): what one gets without choosing."""
    whole = sorted((t for t in trials if t.whole and not isnan(t.score)), key=lambda t: (t.score, t.number))
    return whole[(len(whole) - 1) // 2] if whole else None


def best_so_far(trials: Sequence[Tried]) -> list[float]:
    """The highest score among the whole trials up to each; NaN before the first."""
    best, found = nan, []
    for trial in trials:
        if trial.whole and isfinite(trial.score) and not best >= trial.score:
            best = trial.score
        found.append(best)
    return found


def budget(trials: Sequence[Tried]) -> int:
    """Epochs that were trained in all."""
    return sum(trial.epoch for trial in trials)
