"""The tables of a study of named arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from statistics import fmean
from typing import Any

from sparseflow.report.blocks import Table, Value
from sparseflow.report.formats import p_text, spread_text
from sparseflow.report.runs import OUTCOME, outcome
from sparseflow.stats import smallest_p, summary
from sparseflow.study import ArmResult, ArmsSpec, Choice, FactsOf, Results, total_weights

SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Measured:
    """What an arm's ended runs have in common, or their means; None while nothing has ended."""

    active: float | None
    density: float | None
    flops: float | None
    wall_s: float | None
    val: list[float]
    at_best: list[float]
    best_epochs: list[float]


def measured(result: ArmResult, known: Results, facts: FactsOf) -> Measured:
    """Weights, work and validation of an arm, over its runs on the study's seeds that have ended."""
    ended = [known[m.run] for m in result.members if m.counts and m.run in known]
    if not ended or result.choice.winner is None:
        return Measured(None, None, None, None, [], [], [])
    spec = result.choice.winner.spec
    data = facts(spec)
    active = fmean(sum(run["active"].values()) for run in ended)
    total = total_weights(spec, data.input_shape, data.classes)
    finals = [run["final"] for run in ended if run["status"] == "finished"]
    return Measured(
        active,
        active / total,
        fmean(run["training_flops"] for run in ended),
        fmean(run["wall_s"] for run in ended),
        *([final[name] for final in finals if name in final] for name in _VALIDATION),
    )


_VALIDATION = ("val_accuracy", "best_test_accuracy", "best_epoch")


def arm_table(results: Sequence[ArmResult], known: Results, facts: FactsOf) -> Table:
    """Every arm's outcome at the last epoch."""
    found = {r.arm.name: measured(r, known, facts) for r in results}
    held_out = any(m.val for m in found.values())
    chosen = any(r.arm.chosen for r in results)
    best = max((r.accuracy for r in results), key=_or_least)
    rows: list[list[Value | str]] = []
    for r in results:
        m = found[r.arm.name]
        accuracy = spread_text([100 * member.accuracy for member in r.counted], 2, r.diverged)
        line: list[Value | str] = [r.arm.name]
        line += [r.choice.winner.label if r.choice.winner else "not yet"] if chosen else []
        line += [Value(accuracy, strong=r.accuracy == best)]
        line += [spread_text([member.loss for member in r.counted], 3)]
        if held_out:
            epochs = f"at epoch {fmean(m.best_epochs):.1f} on average" if m.best_epochs else ""
            at_best = Value(spread_text([100 * v for v in m.at_best], 2), hint=epochs)
            line += [spread_text([100 * v for v in m.val], 2), at_best]
        rows.append([*line, str(r.diverged)])
    header = ["arm", *(["chosen"] if chosen else []), "test accuracy (%)", "test loss"]
    header += ["validation (%)", "test at best val. (%)"] if held_out else []
    caption = "Mean ± standard deviation over seeds (number of runs) of the last epoch. Bold: the highest mean."
    if held_out:
        caption += (
            " Beside it: the last epoch's validation accuracy and the test accuracy at the epoch of the best one, both "
            "of the runs that did not diverge."
        )
    return Table("Every arm", caption, [*header, "diverged"], rows)


def cost_table(results: Sequence[ArmResult], known: Results, facts: FactsOf) -> Table:
    """Every arm's size and work."""
    rows: list[list[Value | str]] = []
    for r in results:
        m = measured(r, known, facts)
        if m.active is None:
            rows.append([r.arm.name, *["–"] * 4])
            continue
        rows.append([r.arm.name, f"{m.active:,.0f}", f"{m.density:.3g}", f"{m.flops:.3g}", f"{m.wall_s:.1f}"])
    caption = (
        "Means over the runs that have ended. Density: active weights as a part of the model's. Training FLOPs are "
        "counted from active weights, per run, without the runs that chose a grid's winner."
    )
    return Table("Size and cost", caption, ["arm", "active weights", "density", "training FLOPs", "seconds"], rows)


def test_table(results: Sequence[ArmResult], study: ArmsSpec) -> Table:
    """Each arm against its reference."""
    how = study.statistics
    rows: list[list[Value | str]] = []
    for r in results:
        if r.against is None:
            continue
        test, e = r.against.test, r.against.estimate
        if test is None or e is None:
            rows.append([r.arm.name, r.against.reference, "0", *["–"] * 4])
            continue
        hint = f"W+ = {test.statistic:g}, {test.zeros} zero differences"
        rows.append(
            [
                r.arm.name,
                r.against.reference,
                str(test.pairs),
                f"{100 * e.estimate:+.2f}",
                f"[{100 * e.low:+.2f}, {100 * e.high:+.2f}]" if isfinite(e.low) else "–",
                Value(p_text(test.p_value), hint=hint),
                Value(p_text(r.against.holm), strong=r.against.holm < how.alpha),
            ]
        )
    header = ["arm", "against", "pairs", "difference (points)", f"{how.confidence:.0%} interval", "p", "Holm"]
    caption = (
        f"Exact {_SIDES[how.alternative]} Wilcoxon signed-rank test of test accuracy, paired by seed; Holm corrects "
        f"over this table. Bold: below {how.alpha:g} after the correction. Difference: Hodges-Lehmann estimate in "
        f"percentage points, with the interval from the inverted two-sided test (– where the pairs are too few). "
        f"{reachable(len(study.run_seeds), len(rows), study)}"
    )
    return Table("Tests", caption, header, rows)


_SIDES = {"two-sided": "two-sided", "greater": "one-sided (arm above)", "less": "one-sided (arm below)"}


def reachable(pairs: int, tests: int, study: ArmsSpec) -> str:
    """The smallest p that so many pairs can reach, and how many would be enough."""
    how = study.statistics
    least = smallest_p(pairs, how.alternative)
    words = f"With {pairs} seeds no p below {least:.2g} is possible"
    if least * tests < how.alpha:
        return f"{words}, {min(1.0, least * tests):.2g} after the correction for {tests} tests."
    enough = {m: next(n for n in range(1, 64) if m * smallest_p(n, how.alternative) < how.alpha) for m in (1, tests)}
    words += ", " + ("so no arm can" if least >= how.alpha else "so no arm can after the correction")
    words += f" be significant at {how.alpha:g} whatever it shows: a single test needs {enough[1]} seeds"
    return words + (f", {tests} corrected together {enough[tests]}." if tests > 1 else ".")


def cross_tables(results: Sequence[ArmResult]) -> list[tuple[Table, list[ArmResult]]]:
    """Rows x columns for the arms of crosses; those whose last axis has the same levels share a table."""
    shared: dict[tuple[str, tuple[str, ...]], list[ArmResult]] = {}
    for entry in dict.fromkeys(r.arm.entry for r in results if r.arm.levels):
        of_entry = [r for r in results if r.arm.entry == entry and r.arm.levels]
        axis = list(of_entry[0].arm.levels)[-1]
        columns = tuple(dict.fromkeys(r.arm.levels[axis] for r in of_entry))
        shared.setdefault((axis, columns), []).extend(of_entry)
    return [(_cross_table(axis, columns, arms), arms) for (axis, columns), arms in shared.items()]


def _cross_table(axis: str, columns: Sequence[str], results: Sequence[ArmResult]) -> Table:
    at = {r.arm.place: r for r in results}
    lines = list(dict.fromkeys(r.arm.place[:-1] for r in results))
    rivals = len(lines) > 1
    best = {column: max((at[(*line, column)].accuracy for line in lines), key=_or_least) for column in columns}
    rows: list[list[Value | str]] = []
    for line in lines:
        cells = [at[(*line, column)] for column in columns]
        shown = [
            Value(
                spread_text([100 * m.accuracy for m in r.counted], 2, r.diverged),
                strong=rivals and r.accuracy == best[column],
            )
            for column, r in zip(columns, cells, strict=True)
        ]
        rows.append([" ".join(line), *shown])
    caption = (
        "Mean ± standard deviation over seeds (number of runs) of the last epoch's test accuracy (%). Bold: the "
        "highest mean of the column. † n: diverged runs among them."
    )
    return Table(f"Test accuracy by {axis}", caption, ["", *(f"{axis} {column}" for column in columns)], rows)


def _or_least(accuracy: float) -> float:
    return -1.0 if isnan(accuracy) else accuracy


def grid_table(choice: Choice, study: ArmsSpec) -> Table:
    """Every point of a grid, with the choice marked."""
    seeds = len(study.choice_seeds)
    rows: list[list[Value | str]] = []
    for point in choice.points:
        won = point.point is choice.winner
        values = [100 * score for score in point.scores if not isnan(score)]
        waiting = f" ({point.ended} of {seeds})" if point.ended < seeds else ""
        score = Value(spread_text(values, 2, point.diverged) + waiting, strong=won)
        rows.append([*point.point.levels.values(), score, Value("chosen" if won else "", strong=won)])
    split = SPLITS[study.score]
    caption = (
        f"Mean ± standard deviation of the last epoch's {split} accuracy (%) over seeds "
        f"{', '.join(map(str, study.choice_seeds))}; the highest mean is chosen, of equal ones the first. A diverged "
        "run counts as guessing (†)."
    )
    axes = list(choice.arm.points[0].levels)
    return Table(f"The choice of {choice.arm.name}", caption, [*axes, f"{split} accuracy (%)", ""], rows, len(axes))


def run_rows(
    results: Sequence[ArmResult], study: ArmsSpec, known: Results, statuses: Mapping[str, str]
) -> tuple[list[str], list[list[object]]]:
    """Every run of the study as `runs.csv` has them: those that grids choose by, then the arms' own."""
    header = ["run", "arm", "point", "seed", "purpose", *OUTCOME]
    rows: list[list[object]] = []
    for r in results:
        trials = [(p.point, seed, "choice") for p in r.choice.points for seed in study.choice_seeds]
        winner = r.choice.winner
        own = [(winner, seed, "result") for seed in study.run_seeds] if winner else []
        for point, seed, purpose in [*trials, *own]:
            name = point.at(seed).name
            rows.append([name, r.arm.name, point.label, seed, purpose, *outcome(name, known, statuses)])
    return header, rows


def arm_rows(results: Sequence[ArmResult], known: Results, facts: FactsOf) -> tuple[list[str], list[list[object]]]:
    """`arms.csv`: a line an arm, numbers unrounded, accuracies as parts of one."""
    header = [
        "arm", "chosen", "n", "planned", "diverged", "test_accuracy", "test_accuracy_std", "test_loss",
        "test_loss_std", "val_accuracy", "best_test_accuracy", "best_epoch", "active_weights", "density",
        "training_flops", "wall_s", "against", "pairs", "w_plus", "p", "p_holm", "smallest_p", "hl_difference",
        "hl_low", "hl_high",
    ]  # fmt: skip
    rows: list[list[object]] = []
    for r in results:
        m = measured(r, known, facts)
        line: list[Any] = [r.arm.name, r.choice.winner.label if r.choice.winner else None]
        line += [len(r.counted), r.planned, r.diverged]
        for values in ([x.accuracy for x in r.counted], [x.loss for x in r.counted]):
            line += [summary(values).mean, summary(values).std] if values else [None, None]
        line += [fmean(values) if values else None for values in (m.val, m.at_best, m.best_epochs)]
        line += [m.active, m.density, m.flops, m.wall_s]
        test, e = (r.against.test, r.against.estimate) if r.against else (None, None)
        line += [r.against.reference if r.against else None]
        line += [test.pairs, test.statistic, test.p_value] if test else [None] * 3
        line += [r.against.holm if r.against else None, test.smallest_p if test else None]
        line += [e.estimate, e.low, e.high] if e else [None] * 3
        rows.append(line)
    return header, rows
