"""From finished runs to the comparison's statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, nan
from typing import Any

import numpy as np

from sparseflow.stats import (
    Estimate,
    TauAverage,
    WilcoxonResult,
    average_abs_tau,
    benjamini_hochberg,
    detectable_effect,
    hodges_lehmann,
    holm,
    pairs_needed,
    wilcoxon,
)
from sparseflow.study.compare import Cell, Statistics
from sparseflow.study.facts import DataFacts
from sparseflow.study.spec import RunSpec

MEMBERS = ("sparse", "dense")
OUTCOMES = ("test_loss", "test_accuracy")
Series = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Run -> metric -> [(step, value)]."""


@dataclass(frozen=True)
class MemberResult:
    """The last epoch of one member of a pair; `status` is "missing" where the run has not ended."""

    run: str
    status: str
    accuracy: float
    loss: float

    @property
    def counts(self) -> bool:
        return isfinite(self.accuracy)


@dataclass(frozen=True)
class PairResult:
    dense_width: int
    seed: int
    sparse: MemberResult
    dense: MemberResult

    @property
    def counts(self) -> bool:
        return self.sparse.counts and self.dense.counts

    @property
    def difference(self) -> float:
        """Test accuracy, sparse minus dense."""
        return self.sparse.accuracy - self.dense.accuracy


@dataclass(frozen=True)
class CellResult:
    """One cell of the p-value table; tests are None while no pair has ended."""

    cell: Cell
    pairs: tuple[PairResult, ...]
    exact: WilcoxonResult | None
    normal: WilcoxonResult | None
    estimate: Estimate | None
    holm: float = nan
    bh: float = nan
    pairs_needed: int | None = None
    """Pairs that the effect seen here would need for power 0.8 at the study's alpha; None unless sparse is ahead."""

    @property
    def complete(self) -> list[PairResult]:
        return [pair for pair in self.pairs if pair.counts]

    def count(self, member: str, *statuses: str) -> int:
        return sum(getattr(pair, member).status in statuses for pair in self.pairs)

    @property
    def missing(self) -> int:
        """Runs that have not ended, or failed."""
        return sum(self.count(m, "missing", "failed", "running", "stopped") for m in MEMBERS)


def compare_cells(
    cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]], facts: DataFacts, how: Statistics
) -> list[CellResult]:
    """Test every cell on the pairs that have ended, one-sided, H1: sparse > dense (001 eq. 3.4).

    Args:
        results: run name -> result fields, as the store gives them.
    """
    found = [_cell_result(cell, results, facts, how) for cell in cells]
    raw = np.array([r.exact.p_value if r.exact else nan for r in found])
    adjusted = zip(found, holm(raw), benjamini_hochberg(raw), strict=True)
    return [replace(result, holm=float(h), bh=float(b)) for result, h, b in adjusted]


def _cell_result(cell: Cell, results: Mapping[str, Mapping[str, Any]], facts: DataFacts, how: Statistics) -> CellResult:
    pairs = tuple(
        PairResult(
            pair.dense_width,
            pair.seed,
            member_result(pair.sparse, results, facts, how.diverged),
            member_result(pair.dense, results, facts, how.diverged),
        )
        for pair in cell.pairs
    )
    differences = np.array([pair.difference for pair in pairs if pair.counts])
    if not len(differences):
        return CellResult(cell, pairs, None, None, None)
    # Accuracies are counts over the test set: equal differences must be equal in spite of rounding.
    step = 1.0 / facts.test_size
    exact, normal = (
        wilcoxon(differences, zeros=how.zeros, method=method, resolution=step) for method in ("exact", "normal")
    )
    estimate = hodges_lehmann(differences, confidence=how.confidence, zeros=how.zeros, resolution=step)
    return CellResult(cell, pairs, exact, normal, estimate, pairs_needed=_needed(differences / step, how.alpha))


def member_result(
    spec: RunSpec, results: Mapping[str, Mapping[str, Any]], facts: DataFacts, diverged: str
) -> MemberResult:
    """The last epoch's test accuracy and loss; for a diverged run those of guessing, or NaN."""
    result = results.get(spec.name)
    if result is None:
        return MemberResult(spec.name, "missing", nan, nan)
    status = result["status"]
    if status == "finished":
        return MemberResult(spec.name, status, result["final"]["test_accuracy"], result["final"]["test_loss"])
    if status == "diverged" and diverged == "chance":
        return MemberResult(spec.name, status, 1.0 / facts.classes, log(facts.classes))
    return MemberResult(spec.name, status, nan, nan)


def _needed(differences: np.ndarray[Any, np.dtype[np.float64]], alpha: float) -> int | None:
    """Differences in test images, so whole numbers but for rounding: their mean is exactly 0 or it is not."""
    images = np.rint(differences)
    if len(images) < 2 or images.sum() <= 0:
        return None
    spread = float(images.std(ddof=1))
    # Without spread every pair agrees, and only the reachable p decides.
    return pairs_needed(float(images.mean()) / spread if spread > 0 else 100.0, alpha=alpha)


def smallest_effect(pairs: int, alpha: float) -> float:
    """The smallest standardised effect that this many pairs detect with power 0.8."""
    return detectable_effect(pairs, alpha=alpha)


@dataclass(frozen=True)
class TauRow:
    """Correlation of one gradient-flow measure with one outcome, for one member of the pairs."""

    kind: str
    """"along training": over the measuring points of each run, averaged over runs; "across runs": over widths and seeds
    of each cell, between the measure's average over the points and the last epoch's outcome, averaged over cells."""
    measure: str
    member: str
    outcome: str
    average: TauAverage


def kendall_rows(
    cells: Sequence[Cell], results: Sequence[CellResult], series: Series, measures: Iterable[str]
) -> list[TauRow]:
    """|Kendall tau| of every measure with test loss and accuracy (001 Table 3.1, 000 Table 1)."""
    rows = []
    for measure in measures:
        for member in MEMBERS:
            runs = {getattr(pair, member).name for cell in cells for pair in cell.pairs}
            for outcome in OUTCOMES:
                along = [
                    _aligned(series[run], measure, outcome) for run in sorted(runs) if measure in series.get(run, {})
                ]
                across = [_across(result, series, measure, member, outcome) for result in results]
                rows.append(TauRow("along training", measure, member, outcome, average_abs_tau(_with_points(along))))
                rows.append(TauRow("across runs", measure, member, outcome, average_abs_tau(_with_points(across))))
    return rows


def _with_points(configurations: Sequence[tuple[list[float], list[float]]]) -> list[tuple[list[float], list[float]]]:
    """Without those of which nothing has ended yet."""
    return [(x, y) for x, y in configurations if x]


def _aligned(
    metrics: Mapping[str, Sequence[tuple[int, float]]], measure: str, outcome: str
) -> tuple[list[float], list[float]]:
    other = dict(metrics.get(outcome, ()))
    steps = [(value, other[step]) for step, value in metrics[measure] if step in other]
    return [a for a, _ in steps], [b for _, b in steps]


def _across(
    result: CellResult, series: Series, measure: str, member: str, outcome: str
) -> tuple[list[float], list[float]]:
    members = [getattr(pair, member) for pair in result.pairs]
    ended = [m for m in members if m.counts and measure in series.get(m.run, {})]
    return (
        [average_over_points(series, m.run, measure) for m in ended],
        [m.accuracy if outcome == "test_accuracy" else m.loss for m in ended],
    )


def average_over_points(series: Series, run: str, measure: str) -> float:
    """The mean of a measure over a run's measuring points (001 sec. 3.3.1); NaN without any."""
    values = [value for _, value in series.get(run, {}).get(measure, ())]
    return float(np.mean(values)) if values else nan
