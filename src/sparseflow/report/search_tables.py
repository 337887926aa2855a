"""The tables of a search over layer densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from statistics import fmean
from typing import Any, Protocol

from sparseflow.core import BadValue
from sparseflow.report.blocks import Table, Value
from sparseflow.report.formats import p_text, spread_text
from sparseflow.report.runs import OUTCOME, outcome
from sparseflow.search import Found, Importances, budget, importances
from sparseflow.stats import hodges_lehmann, summary, wilcoxon
from sparseflow.study import ArmResult, ArmsSpec

Known = Mapping[str, Mapping[str, Any]]
Rows = tuple[list[str], list[list[object]]]

LEVEL = 0.9
"""Of intervals over the seeds of a search: five pairs have none at 95 %."""

RESAMPLES = 20
"""Of the runs, for the importance of layers."""


class Afterwards(Protocol):
    """The runs after a search."""

    @property
    def study(self) -> ArmsSpec | None: ...
    @property
    def results(self) -> Sequence[ArmResult]: ...
    def of(self, arm: str) -> ArmResult | None: ...


def found_table(found: Sequence[Found], after: Sequence[Afterwards], known: Known) -> Table:
    """What each search found, in the columns of 001 Table B.1."""
    rows: list[list[Value | str]] = []
    several = len(found) > 1
    for one, then in zip(found, after, strict=True):
        dense = then.of("dense")
        for arm in ("dense", "winner", "median", "transferred"):
            result = then.of(arm)
            trial = {"winner": one.winner, "median": one.median, "transferred": one.trials[0] if one.trials else None}
            tried = trial.get(arm)
            if result is None and (arm != "winner" or tried is None):
                continue
            score = f"{100 * tried.score:.2f}" if tried is not None else "–"
            accuracy = spread_text([100 * m.accuracy for m in result.counted], 2, result.diverged) if result else "–"
            change = "–"
            if result is not None and dense is not None:
                change = f"{100 * (result.accuracy - dense.accuracy):+.2f}"
            active = tried.active if tried is not None else _active(result, known)
            share = one.share(tried) if tried is not None else 1.0
            vector = ", ".join(f"{d:.3g}" for d in tried.vector) if tried is not None else "1"
            label = [one.quest.label] if several else []
            rows.append([*label, arm, accuracy, score, f"{active:,}", change, f"{100 * share:.1f}", f"[{vector}]"])
    split = {"val": "validation", "test": "test"}[found[0].quest.spec.score]
    header = ["search"] if several else []
    header += ["", "test accuracy (%)", f"score ({split}, %)", "weights", "Δ to dense", "% dense", "densities"]
    caption = (
        "001 Table B.1. Test accuracy: mean ± standard deviation (n) of runs after the search, on seeds that it has "
        "not seen; score: accuracy of the one run that chose. Weights: active ones of the whole network. % dense: of "
        "the layers that the search is about."
    )
    return Table("What was found", caption, header, rows, labels=2 if several else 1)


def _active(result: ArmResult | None, known: Known) -> int:
    ended = [known[m.run] for m in result.counted if m.run in known] if result is not None else []
    return round(fmean(sum(run["active"].values()) for run in ended)) if ended else 0


def searches_table(found: Sequence[Found], after: Sequence[Afterwards]) -> Table:
    """Over the seeds of each search: does what is found beat dense, an ordinary vector, and the first kind's winner?"""
    kinds: dict[str, dict[int, tuple[Found, Afterwards]]] = {}
    for one, then in zip(found, after, strict=True):
        kinds.setdefault(one.quest.kind, {})[one.quest.spec.seed] = one, then
    first = next(iter(kinds))
    rows: list[list[Value | str]] = []
    for kind, of in kinds.items():
        spent = summary([budget(one.trials) for one, _ in of.values()]).mean
        pairs = [("dense", of), ("median", of), *([("winner", kinds[first])] if kind != first else [])]
        for other, theirs in pairs:
            differences = [
                mine.accuracy - yours.accuracy
                for seed, (_, then) in of.items()
                if seed in theirs
                and (mine := then.of("winner")) is not None
                and (yours := theirs[seed][1].of(other)) is not None
            ]
            if not differences:
                continue
            what = f"winner – {other}" + (f" of {first}" if theirs is not of else "")
            rows.append([kind or "–", f"{spent:,.0f}", what, *_differences(differences)])
    caption = (
        f"Differences of mean test accuracies in points, a pair for each seed of the search: mean ± standard deviation "
        f"(n), Hodges-Lehmann interval at {LEVEL:.0%}, exact two-sided Wilcoxon signed-rank test (five pairs: at least "
        "0.0625). Epochs: trained by the search, mean over its seeds."
    )
    header = ["search", "epochs", "", "difference", f"{LEVEL:.0%} interval", "above", "p"]
    return Table("Over the seeds of the searches", caption, header, rows, labels=1)


def _differences(values: Sequence[float]) -> list[str]:
    points = [100 * v for v in values]
    estimate = hodges_lehmann(points, confidence=LEVEL)
    interval = f"[{estimate.low:+.2f}, {estimate.high:+.2f}]" if isfinite(estimate.low) else "–"
    above = f"{sum(v > 0 for v in values)} of {len(values)}"
    return [spread_text(points, 2), interval, above, p_text(wilcoxon(points, alternative="two-sided").p_value)]


def front_table(found: Found) -> Table:
    """Trials that no other beats in score and size both."""
    rows: list[list[Value | str]] = [
        [f"{t.active:,}", f"{100 * found.share(t):.1f}", f"{100 * t.score:.2f}", str(t.number), _vector(t.vector)]
        for t in found.front
    ]
    title = "Pareto front" + (f", {found.quest.label}" if found.quest.label else "")
    caption = "Vectors with fewer active weights than any of a higher or equal score; of runs that went all the way."
    header = ["active weights", "% dense", "score (%)", "number", "densities"]
    return Table(title, caption, header, rows, folded=len(rows) > 12)


def _vector(vector: Sequence[float]) -> str:
    return f"[{', '.join(f'{d:.3g}' for d in vector)}]"


@lru_cache(maxsize=64)
def _importances(names: tuple[str, ...], told: tuple[tuple[tuple[float, ...], float], ...]) -> Importances | str:
    try:
        return importances(names, told, resamples=RESAMPLES)
    except BadValue as error:
        return str(error)


def importance_of(found: Found) -> Importances | str | None:
    """Of each layer's density; words where the runs do not carry it, None before the search has ended."""
    if not found.ended or found.quest.spec.uniform:
        return None
    return _importances(found.quest.space.names, tuple((tuple(t.vector), t.score) for t in found.whole))


def importance_tables(found: Sequence[Found]) -> list[Table]:
    """Which layers' densities matter."""
    tables = []
    for one in found:
        found_out = importance_of(one)
        if found_out is None:
            continue
        title = "Importance of each layer's density" + (f", {one.quest.label}" if one.quest.label else "")
        if isinstance(found_out, str):
            tables.append(Table(title, f"Not to be had: {found_out}.", [], []))
            continue
        rows: list[list[Value | str]] = [
            [name, f"{i.share:.3f}", f"[{i.low:.3f}, {i.high:.3f}]", f"{i.tau:+.2f}"]
            for name, i in found_out.layers.items()
        ]
        caption = (
            f"Part of the score's variance that a random forest no longer explains when this density is permuted, on "
            f"runs that it has not seen, with an 80 % interval over {RESAMPLES} resamples of {found_out.runs} runs. τ: "
            f"Kendall's, of density and score. The forest explains {100 * found_out.explained:.0f} % of the variance"
            + ("; where that is near 0 or below, the shares mean nothing." if found_out.explained < 0.1 else ".")
        )
        tables.append(Table(title, caption, ["layer", "share", "80 % interval", "τ"], rows))
    return tables


def importance_rows(found: Sequence[Found]) -> Rows:
    """`importance.csv`."""
    rows: list[list[object]] = []
    for one in found:
        found_out = importance_of(one)
        if isinstance(found_out, Importances):
            rows += [
                [one.quest.label, name, i.share, i.low, i.high, i.tau, found_out.explained, found_out.runs]
                for name, i in found_out.layers.items()
            ]
    return ["search", "layer", "share", "low", "high", "tau", "explained", "runs"], rows


def trial_rows(found: Sequence[Found]) -> Rows:
    """`trials.csv`: every vector that was tried."""
    rows: list[list[object]] = []
    for one in found:
        fronts = {t.number for t in one.front}
        best = one.winner
        for t in one.trials:
            rows.append(
                [
                    one.quest.label,
                    t.number,
                    t.run,
                    t.origin,
                    t.status,
                    t.score,
                    t.epoch,
                    t.active,
                    one.share(t),
                    best is not None and t.number == best.number,
                    t.number in fronts,
                    " ".join(repr(d) for d in t.vector),
                ]
            )
    header = ["search", "number", "run", "origin", "status", "score", "epoch", "active_weights", "density", "winner"]
    return [*header, "on_front", "densities"], rows


def trial_table(found: Sequence[Found]) -> Table:
    """Every vector that was tried."""
    rows: list[list[Value | str]] = []
    for one in found:
        best = one.winner
        for t in one.trials:
            score = f"{100 * t.score:.2f}" if isfinite(t.score) else "–"
            won = best is not None and t.number == best.number
            cells: list[Value | str] = [
                str(t.number),
                t.origin,
                t.status,
                str(t.epoch),
                Value(score, strong=won),
                f"{t.active:,}",
            ]
            rows.append([*([one.quest.label] if len(found) > 1 else []), *cells, _vector(t.vector)])
    header = ["search"] if len(found) > 1 else []
    header += ["number", "origin", "status", "epochs", "score (%)", "active weights", "densities"]
    return Table("All trials", "trials.csv has every digit.", header, rows, folded=True)


def verdict_rows(found: Sequence[Found]) -> Rows:
    """`verdicts.csv`: every rung, in the order in which the verdicts fell."""
    rows: list[list[object]] = []
    for one in found:
        rungs = one.quest.spec.rungs
        for v in one.verdicts:
            assert rungs is not None
            rows.append([one.quest.label, v.number, v.run, rungs.epochs[v.rung], v.score, v.goes_on])
    return ["search", "number", "run", "epoch", "score", "goes_on"], rows


def run_rows(found: Sequence[Found], after: Sequence[Afterwards], known: Known, statuses: Mapping[str, str]) -> Rows:
    """`runs.csv`: trials, then the runs after the search; a run that several searches share has a line in each."""
    rows: list[list[object]] = []
    for one, then in zip(found, after, strict=True):
        label, spec = one.quest.label, one.quest.spec
        rows += [
            [t.run, label, f"trial {t.number}", spec.trial_seed, "trial", *outcome(t.run, known, statuses)]
            for t in one.trials
        ]
        for result in then.results:
            for member in result.members:
                point = result.choice.winner
                seed = next((s for s in spec.run_seeds if point is not None and point.at(s).name == member.run), None)
                rows.append([member.run, label, result.arm.name, seed, "result", *outcome(member.run, known, statuses)])
    return ["run", "search", "arm", "seed", "purpose", *OUTCOME], rows
