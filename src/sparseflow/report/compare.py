"""The report of a capacity-matched comparison."""

from __future__ import annotations

from collections.abc import Sequence

from sparseflow.measure import MEASURES
from sparseflow.report import compare_figures as figures
from sparseflow.report import compare_tables as tables
from sparseflow.report.blocks import Section, Text, write_csv
from sparseflow.report.common import provenance
from sparseflow.report.registry import Report, Study, reports
from sparseflow.report.runs import run_table
from sparseflow.study import (
    MEMBERS,
    OUTCOMES,
    CellResult,
    CompareSpec,
    DataFacts,
    TauRow,
    cells,
    compare_cells,
    kendall_rows,
    smallest_effect,
    validate,
)


@reports.add("compare", cite="001 ch. 3; 000")
def compare_report(study: Study) -> Report:
    """Does sparse beat dense at equal capacity? p-values, sizes, gradient flow, every run."""
    spec = validate(CompareSpec, study.content["spec"])
    facts = DataFacts(**study.content["facts"])
    known = study.store.results()
    table = cells(spec, facts)
    results = compare_cells(table, known, facts, spec.statistics)
    series = study.store.series([*MEASURES, *OUTCOMES], points_only=True)
    taus = kendall_rows(table, results, series, MEASURES)
    layout = tables.Layout(results)
    header, rows = tables.run_rows(results, known, study.store.statuses())
    _write_csvs(study, results, taus, header, rows)
    measured = any("egf_2" in of_run for of_run in series.values())
    flow = [figures.flow_figure(results, layout, series, m, study.figures) for m in ("egf_2", "egf_1", "gf_1", "gf_2")]
    ended = {name: known[name] for name in {str(row[0]) for row in rows} if name in known}
    sections = [
        Section(
            "The answer",
            [
                Text(_answer(results, spec)),
                tables.p_table(results, layout, spec.statistics.alpha),
                figures.difference_figure(results, study.figures),
                tables.detail_table(results, spec.statistics.confidence),
            ],
        ),
        Section(
            "Accuracy and gradient flow",
            [figures.accuracy_figure(results, layout, study.figures), *(flow if measured else ())],
        ),
        Section(
            "Does gradient flow foretell generalisation?",
            [tables.kendall_table(taus, kind) for kind in ("along training", "across runs")] if measured else [],
        ),
        Section("Performance", [tables.outcome_table(results, layout, outcome) for outcome in reversed(OUTCOMES)]),
        Section("What these numbers can and cannot say", [Text(words) for words in _limits(results, spec, facts)]),
        Section("What was compared", [tables.parameter_table(results, known)]),
        Section("Every run", [run_table(header[:7], header, rows)]),
        provenance(study.content, [facts], ended),
    ]
    return Report(spec.title, [section for section in sections if section.blocks])


def _answer(results: Sequence[CellResult], spec: CompareSpec) -> str:
    tested = [r for r in results if r.exact is not None]
    missing = sum(r.missing for r in results)
    alpha = spec.statistics.alpha
    if not tested:
        return "No pair of runs has ended yet."
    ahead = [r.cell.label for r in tested if r.exact and r.exact.p_value < alpha]
    sure = [r.cell.label for r in tested if r.holm < alpha]
    words = (
        f"In {len(ahead)} of {len(tested)} cells the sparse networks reach a higher test accuracy than their dense "
        f"twins at p < {alpha:g}"
    )
    words += f" ({', '.join(ahead)})" if ahead else ""
    words += f"; {len(sure)} of these hold when the table is corrected as a whole (Holm)" if ahead else ""
    words += f": {', '.join(sure)}." if sure else "."
    if missing:
        words += f" {missing} runs have not ended: the table is preliminary."
    return words


def _limits(results: Sequence[CellResult], spec: CompareSpec, facts: DataFacts) -> list[str]:
    pairs = max((len(r.complete) for r in results), default=0)
    diverged = {member: sum(r.count(member, "diverged") for r in results) for member in MEMBERS}
    words = [
        "A small p says that over these widths and seeds the sparse member tends to be ahead, with this data, this "
        "architecture and these training settings. It does not say by how much (the interval does), nor that it would "
        "at other learning rates: each rate may suit one member better. A large p does not show that dense is better, "
        "only that sparse was not seen to be.",
        f"{len(results)} cells are tested at once; at {spec.statistics.alpha:g} about "
        f"{len(results) * spec.statistics.alpha:.1f} would look significant by chance alone if nothing differed. The "
        "Holm and Benjamini-Hochberg columns account for that.",
        "The pairs of a cell share data and, for one width, architecture; seeds differ in masks, initial weights and "
        "batch order. Widths enter with equal weight, so a cell mixes densities at which the answer may "
        "differ: look at the figure.",
        f"Every accuracy is the last epoch's on {facts.test_size:,} test examples, so it comes in steps of "
        f"{100 / facts.test_size:.3g} percentage points and carries a sampling error common to both members.",
    ]
    if pairs:
        effect = smallest_effect(pairs, spec.statistics.alpha)
        reach = (
            f"With {pairs} pairs the test finds a difference of {effect:.2f} standard deviations of the differences "
            "four times out of five; smaller ones will often be missed."
            if effect != float("inf")
            else f"{pairs} pairs cannot reach p < {spec.statistics.alpha:g} whatever they show."
        )
        words.append(reach)
    rule = (
        "They count as guessing (accuracy 1/classes, loss log(classes))"
        if spec.statistics.diverged == "chance"
        else "Their pairs are left out"
    )
    words.append(
        f"Diverged runs: {diverged['sparse']} sparse, {diverged['dense']} dense. {rule}; † marks the cells."
        if any(diverged.values())
        else "No run diverged."
    )
    return words


def _write_csvs(
    study: Study,
    results: Sequence[CellResult],
    taus: Sequence[TauRow],
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    write_csv(study.folder / "runs.csv", header, rows)
    columns = [
        "optimizer", "variant", "activation", "pairs", "pairs_planned", "w_plus", "zeros", "ties", "p_exact",
        "p_normal", "p_holm", "p_bh", "smallest_p", "hl_difference", "hl_low", "hl_high",
        "hl_confidence_reached", "pairs_needed",
        "diverged_sparse", "diverged_dense", "missing_runs",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for r in results:
        place: list[object] = [r.cell.optimizer, r.cell.variant, r.cell.activation, len(r.complete), len(r.pairs)]
        tail: list[object] = [r.count("sparse", "diverged"), r.count("dense", "diverged"), r.missing]
        if r.exact is None or r.normal is None or r.estimate is None:
            lines.append([*place, *[None] * (len(columns) - len(place) - len(tail)), *tail])
            continue
        e = r.estimate
        lines.append(
            [
                *place, r.exact.statistic, r.exact.zeros, r.exact.ties, r.exact.p_value, r.normal.p_value, r.holm, r.bh,
                r.exact.smallest_p, e.estimate, e.low, e.high, e.confidence_reached, r.pairs_needed, *tail,
            ]
        )  # fmt: skip
    write_csv(study.folder / "pvalues.csv", columns, lines)
    write_csv(
        study.folder / "kendall.csv",
        ["kind", "measure", "member", "outcome", "mean_abs_tau", "configurations", "without_tau"],
        [[t.kind, t.measure, t.member, t.outcome, t.average.mean, t.average.counted, t.average.constant] for t in taus],
    )
