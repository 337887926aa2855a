"""Asynchronous successive halving: which runs go on past a rung, as a function of the scores that came before.

A run meets the rungs in order: after min_epochs * eta**k epochs, k = 0, 1, ..., as long as that is less than
max_epochs. It is judged there by its score, larger is better; a score that is not finite (a diverged run) is never
good enough. Two rules, of one form:

- `Stopping`, as Ray Tune's ASHAScheduler has it and 001 sec. 4.3.3 used it: a run stops for good unless its score is
  at least the (1 - 1/eta) quantile of those recorded at the rung before it.
- `Promoting`, Li et al. 2018, arXiv:1810.05934, Algorithm 2: a run pauses at each rung, and goes on once it is among
  the best floor(n / eta) of the n runs recorded there; it may be promoted long after it paused.

Both are what their record makes of them: `type(rule)(rungs, record=rule.record)` decides as `rule` would.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseflow.core import BadValue, Catalog, check_positive


@dataclass(frozen=True)
class Rungs:
    """Where runs are judged: `epochs`, each `eta` times the one before.

    Raises:
        BadValue: for min_epochs below 1 or above max_epochs, or eta below 2.
    """

    min_epochs: int
    max_epochs: int
    eta: int = 2

    def __post_init__(self) -> None:
        check_positive("min_epochs", self.min_epochs)
        if self.min_epochs > self.max_epochs:
            raise BadValue(f"min_epochs must not be above max_epochs, got {self.min_epochs} and {self.max_epochs}")
        if self.eta < 2:
            raise BadValue(f"eta must be at least 2, got {self.eta}")

    @property
    def epochs(self) -> tuple[int, ...]:
        """After how many epochs a run meets each rung; the end of the training is none."""
        found = [self.min_epochs]
        while found[-1] < self.max_epochs:
            found.append(found[-1] * self.eta)
        return tuple(found[:-1])


@dataclass(frozen=True)
class Decision:
    """What became of a run at a rung, numbered from 0. A later one for the same two is a promotion."""

    rung: int
    run: str
    score: float
    goes_on: bool


class Halving(ABC):
    """Decisions about runs at rungs, in the order in which they were asked for.

    Args:
        record: decisions taken before, in their order. They stand as they are and are not judged again.

    Raises:
        BadValue: for a record that is of other rungs.
    """

    def __init__(self, rungs: Rungs, record: Iterable[Decision] = ()) -> None:
        self.rungs = rungs
        self.record: list[Decision] = []
        self._latest: list[dict[str, Decision]] = [{} for _ in rungs.epochs]
        for decision in record:
            self._known_rung(decision.rung)
            self._note(decision)

    def judge(self, rung: int, run: str, score: float) -> bool:
        """Whether the run goes on past the rung, by its score there. Asked again, what was decided, whatever the score.

        Raises:
            BadValue: for a rung that there is not.
        """
        self._known_rung(rung)
        known = self._latest[rung].get(run)
        if known is None:
            self._decide(rung, run, score)
        return self._latest[rung][run].goes_on

    @abstractmethod
    def _decide(self, rung: int, run: str, score: float) -> None:
        """Note the first decision about a run at a rung."""

    @abstractmethod
    def promote(self) -> Decision | None:
        """The run that goes on next of those that paused, noted as promoted; None if there is none."""

    def _note(self, decision: Decision) -> None:
        self.record.append(decision)
        self._latest[decision.rung][decision.run] = decision

    def _known_rung(self, rung: int) -> None:
        if not 0 <= rung < len(self._latest):
            raise BadValue(f"there is no rung {rung}: runs are judged after {list(self.rungs.epochs)} epochs, from 0")


halvings: Catalog[type[Halving]] = Catalog("halving")
"""name -> a rule of halving."""


@halvings.add("stopping", cite="Ray Tune's ASHAScheduler; 001 sec. 4.3.3; after Li et al. 2018, arXiv:1810.05934")
class Stopping(Halving):
    """A run stops for good unless its score reaches the (1 - 1/eta) quantile of those before it."""

    def _decide(self, rung: int, run: str, score: float) -> None:
        """The first run of a rung goes on, ties with the quantile go on; it interpolates linearly between scores.

        As in Ray Tune, a score counts from the next run on, and NaN counts nothing. Unlike there, a run with NaN itself
        stops: the comparison in Ray Tune is false for it, so that a diverged trial goes on to the end.
        """
        before = [d.score for d in self._latest[rung].values() if math.isfinite(d.score)]
        goes_on = math.isfinite(score) and (not before or score >= self._cutoff(before))
        self._note(Decision(rung, run, score, goes_on))

    def _cutoff(self, scores: Sequence[float]) -> float:
        return float(np.percentile(scores, (1 - 1 / self.rungs.eta) * 100))

    def promote(self) -> None:
        """Nothing: a run that stopped stays so."""
        return


@halvings.add("promoting", cite="Li et al. 2018, arXiv:1810.05934, Algorithm 2")
class Promoting(Halving):
    """A run pauses, and goes on once it is among the best n / eta of the n runs recorded."""

    def _decide(self, rung: int, run: str, score: float) -> None:
        """It goes on at once if `promote` would choose it, which puts the highest rung first."""
        self._note(Decision(rung, run, score, False))
        if self._next() == self._latest[rung][run]:
            self.promote()

    def promote(self) -> Decision | None:
        """The best run to go on at the highest rung that has one, as `get_job` of the algorithm finds it."""
        found = self._next()
        if found is None:
            return None
        promoted = Decision(found.rung, found.run, found.score, True)
        self._note(promoted)
        return promoted

    def _next(self) -> Decision | None:
        """Ties go to the run recorded first; a score that is not finite counts as a run, but is not promoted."""
        for latest in reversed(self._latest):
            ranked = sorted(latest.values(), key=lambda d: -d.score if math.isfinite(d.score) else math.inf)
            for decision in ranked[: len(ranked) // self.rungs.eta]:
                if not decision.goes_on and math.isfinite(decision.score):
                    return decision
        return None
