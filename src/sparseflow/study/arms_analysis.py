"""From finished runs to chosen grid points, the arms' outcomes and their tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from statistics import fmean

import numpy as np

from sparseflow.stats import Estimate, WilcoxonResult, hodges_lehmann, holm, summary, wilcoxon
from sparseflow.study.analysis import MemberResult, member_result
from sparseflow.study.arms import Arm, Point, references
from sparseflow.study.arms_spec import ArmsSpec, ArmStatistics
from sparseflow.study.drive import Results, Sequel
from sparseflow.study.facts import DataFacts, FactsOf
from sparseflow.study.spec import RunSpec

_DIGITS = 9
"""Mean accuracies that agree to so many are equal: sums of the same numbers in another order differ by less."""


@dataclass(frozen=True)
class PointScore:
    """A grid point and its accuracies on the choosing split, by seed; NaN where a run has not ended or failed."""

    point: Point
    scores: tuple[float, ...]
    diverged: int

    @property
    def ended(self) -> int:
        return sum(not isnan(score) for score in self.scores)

    @property
    def mean(self) -> float:
        """NaN until every seed has ended."""
        return round(summary(self.scores).mean, _DIGITS)


@dataclass(frozen=True)
class Choice:
    """A grid's points and the one chosen, None until every run of the grid has ended."""

    arm: Arm
    points: tuple[PointScore, ...]
    winner: Point | None


def choose(study: ArmsSpec, arm: Arm, results: Results, facts: FactsOf) -> Choice:
    """The point of highest mean accuracy at the last epoch, over the grid's seeds, on the split `study.score`.

    A diverged run counts as guessing, 1 / classes. Of points with equal means the first in the grid's order wins. An
    arm without a grid has its only point for a winner, whatever has ended.
    """
    if not arm.chosen:
        return Choice(arm, (), arm.points[0])
    points = tuple(_score(study, point, results, facts) for point in arm.points)
    open_ = any(isnan(point.mean) for point in points)
    winner = None if open_ else max(points, key=lambda point: point.mean).point
    return Choice(arm, points, winner)


def _score(study: ArmsSpec, point: Point, results: Results, facts: FactsOf) -> PointScore:
    scores, diverged = [], 0
    for seed in study.choice_seeds:
        run = point.at(seed)
        result = results.get(run.name, {"status": "missing"})
        if result["status"] == "diverged":
            diverged += 1
            scores.append(1.0 / facts(run).classes)
        elif result["status"] == "finished":
            scores.append(float(result["final"][f"{study.score}_accuracy"]))
        else:
            scores.append(nan)
    return PointScore(point, tuple(scores), diverged)


def first_runs(study: ArmsSpec, arms: Sequence[Arm]) -> list[RunSpec]:
    """Runs that wait for nothing, each once: those of the grids, which others wait for, then seed by seed."""
    grids = [point.at(seed) for seed in study.choice_seeds for arm in arms if arm.chosen for point in arm.points]
    plain = [arm.points[0].at(seed) for seed in study.run_seeds for arm in arms if not arm.chosen]
    return list({run.name: run for run in [*grids, *plain]}.values())


def winners(study: ArmsSpec, arms: Sequence[Arm], facts: FactsOf) -> Sequel | None:
    """The chosen points on the study's seeds; None without grids."""
    grids = [arm for arm in arms if arm.chosen]

    def runs(results: Results) -> list[RunSpec]:
        chosen = [choose(study, arm, results, facts).winner for arm in grids]
        return [point.at(seed) for seed in study.run_seeds for point in chosen if point is not None]

    candidates = [point.at(seed) for seed in study.run_seeds for arm in grids for point in arm.points]
    return Sequel(len(grids) * len(study.run_seeds), runs, candidates) if grids else None


@dataclass(frozen=True)
class Against:
    """The paired test of an arm against its reference; tests are None while no pair of seeds has ended."""

    reference: str
    test: WilcoxonResult | None
    estimate: Estimate | None
    holm: float = nan


@dataclass(frozen=True)
class ArmResult:
    """An arm's runs on the study's seeds, the choice behind them and the test against its reference.

    Attributes:
        members: by seed; empty while the choice is open.
        against: None for an arm without a reference, or with one that was trained on other data.
    """

    arm: Arm
    choice: Choice
    members: tuple[MemberResult, ...]
    planned: int
    against: Against | None = None

    @property
    def counted(self) -> list[MemberResult]:
        return [member for member in self.members if member.counts]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy of the last epoch; NaN while no run has ended."""
        return round(fmean(member.accuracy for member in self.counted), _DIGITS) if self.counted else nan

    @property
    def diverged(self) -> int:
        return sum(member.status == "diverged" for member in self.members)

    @property
    def missing(self) -> int:
        """Runs that have not ended, or failed."""
        return self.planned - sum(member.status in ("finished", "diverged") for member in self.members)


def arm_results(study: ArmsSpec, arms: Sequence[Arm], results: Results, facts: FactsOf) -> list[ArmResult]:
    """Every arm's outcome, and its test: paired over the common seeds, exact, corrected over all tests (Holm)."""
    found = {arm.name: _arm_result(study, arm, results, facts) for arm in arms}
    against = {}
    for name, reference in references(study, arms).items():
        own, other = facts(found[name].arm.points[0].spec), facts(reference.points[0].spec)
        if own.digest == other.digest:
            against[name] = _test(found[name], found[reference.name], own, study.statistics)
    if against:
        raw = np.array([a.test.p_value if a.test else nan for a in against.values()])
        for (name, test), p in zip(against.items(), holm(raw), strict=True):
            found[name] = replace(found[name], against=replace(test, holm=float(p)))
    return list(found.values())


def _arm_result(study: ArmsSpec, arm: Arm, results: Results, facts: FactsOf) -> ArmResult:
    choice = choose(study, arm, results, facts)
    runs = [choice.winner.at(seed) for seed in study.run_seeds] if choice.winner else []
    members = tuple(member_result(run, results, facts(run), study.statistics.diverged) for run in runs)
    return ArmResult(arm, choice, members, len(study.run_seeds))


def _test(one: ArmResult, other: ArmResult, facts: DataFacts, how: ArmStatistics) -> Against:
    pairs = [(a, b) for a, b in zip(one.members, other.members, strict=False) if a.counts and b.counts]
    if not pairs:
        return Against(other.arm.name, None, None)
    differences = [a.accuracy - b.accuracy for a, b in pairs]
    # Accuracies are counts over the test set: equal differences must be equal in spite of rounding.
    step = 1.0 / facts.test_size
    test = wilcoxon(differences, alternative=how.alternative, zeros=how.zeros, resolution=step)
    estimate = hodges_lehmann(differences, confidence=how.confidence, zeros=how.zeros, resolution=step)
    return Against(other.arm.name, test, estimate)
