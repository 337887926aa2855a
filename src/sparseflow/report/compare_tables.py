"""The tables of a capacity-matched comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite, isnan
from typing import Any

from sparseflow.report.blocks import Table, Value
from sparseflow.report.formats import p_colour, p_text, spread_text
from sparseflow.report.runs import OUTCOME, outcome
from sparseflow.stats import smallest_p, summary
from sparseflow.study.analysis import MEMBERS, OUTCOMES, CellResult, MemberResult, TauRow

MEASURE_NAMES = {
    "gf_1": "|g|₁",
    "gf_2": "|g|₂",
    "egf_1": "EGF₁",
    "egf_2": "EGF₂",
    "squared": "|g·m|₂²",
}


_TOO_FEW = "too few pairs: no interval of this confidence can be had from the signed-rank test"


class Layout:
    """Rows are optimisers; columns are variants, or activations where those are what varies, or both."""

    def __init__(self, results: Sequence[CellResult]) -> None:
        self.rows = list(dict.fromkeys(r.cell.optimizer for r in results))
        several = len({r.cell.activation for r in results}) > 1
        one_variant = len({r.cell.variant for r in results}) == 1
        self._key: Callable[[CellResult], str] = lambda r: (
            r.cell.activation
            if several and one_variant
            else f"{r.cell.variant} {r.cell.activation}"
            if several
            else r.cell.variant
        )
        self.columns = list(dict.fromkeys(self._key(r) for r in results))
        self._at = {(r.cell.optimizer, self._key(r)): r for r in results}

    def column(self, result: CellResult) -> str:
        return self._key(result)

    def grid(self, show: Callable[[CellResult], Value]) -> list[list[Value | str]]:
        """A table body with one `show` per cell."""
        return [[row, *(show(self._at[row, column]) for column in self.columns)] for row in self.rows]


def p_table(results: Sequence[CellResult], layout: Layout, alpha: float) -> Table:
    """One-sided Wilcoxon p-values on the papers' colour scale."""
    pairs = max((len(r.complete) for r in results), default=0)

    def show(r: CellResult) -> Value:
        if r.exact is None or r.normal is None:
            return Value("–", hint="no pair has ended")
        counted = len(r.complete)
        note = f" ({counted}/{len(r.pairs)})" if counted < len(r.pairs) else ""
        diverged = r.count("sparse", "diverged") + r.count("dense", "diverged")
        note += f" †{diverged}" if diverged else ""
        hint = (
            f"W+ = {r.exact.statistic:g}, {counted} pairs, {r.exact.zeros} zero differences; "
            f"exact {r.exact.p_value:.3g}, normal approximation {r.normal.p_value:.3g}, Holm {r.holm:.3g}, "
            f"Benjamini-Hochberg {r.bh:.3g}"
        )
        return Value(p_text(r.exact.p_value) + note, p_colour(r.exact.p_value), hint, r.exact.p_value < alpha)

    caption = (
        "One-sided Wilcoxon signed-rank test over pairs of equal width and seed, exact under ties and zeros. "
        f"H1: the sparse network has the higher test accuracy. Green (0): sparse ahead; red (1): not. "
        f"Bold: p < {alpha:g}, uncorrected. With {pairs} pairs no p below {smallest_p(max(pairs, 1)):.1e} is possible. "
        "† n: diverged runs among the cell's. (k/n): only k of n pairs have ended."
    )
    return Table("Does sparse beat dense? p-values", caption, ["", *layout.columns], layout.grid(show))


def detail_table(results: Sequence[CellResult], confidence: float) -> Table:
    """Every cell with both p-values, corrections, the size of the difference and what it would take to see it."""
    rows: list[list[Value | str]] = []
    for r in results:
        if r.exact is None or r.normal is None or r.estimate is None:
            rows.append([r.cell.label, *["–"] * 9])
            continue
        e = r.estimate
        rows.append(
            [
                r.cell.label,
                str(len(r.complete)),
                Value(p_text(r.exact.p_value), p_colour(r.exact.p_value)),
                Value(p_text(r.normal.p_value), p_colour(r.normal.p_value)),
                p_text(r.holm),
                p_text(r.bh),
                f"{100 * e.estimate:+.2f}",
                f"[{100 * e.low:+.2f}, {100 * e.high:+.2f}]" if isfinite(e.low) else Value("–", hint=_TOO_FEW),
                str(r.pairs_needed) if r.pairs_needed else "–",
                f"{r.count('sparse', 'diverged')} / {r.count('dense', 'diverged')}",
            ]
        )
    header = [
        "cell", "pairs", "p exact", "p normal", "Holm", "BH", "difference (points)", f"{confidence:.0%} interval",
        "pairs needed", "diverged s / d",
    ]  # fmt: skip
    caption = (
        "p normal: the approximation that the papers printed. Holm and BH (Benjamini-Hochberg) correct the exact p "
        "over this table's cells. Difference: Hodges-Lehmann estimate of sparse minus dense test accuracy in "
        "percentage points, with the interval from the inverted exact test. Pairs needed: for the effect seen here to "
        "be found significant four times out of five; – where sparse is not ahead."
    )
    return Table("The same cells in detail", caption, header, rows)


def outcome_table(results: Sequence[CellResult], layout: Layout, metric: str) -> Table:
    """Mean +/- standard deviation over widths and seeds of both members (000 Tables 5 and 6)."""
    accuracy = metric == "test_accuracy"
    pick: Callable[[MemberResult], float] = (lambda m: 100 * m.accuracy) if accuracy else (lambda m: m.loss)

    def show(r: CellResult, member: str) -> Value:
        values = [pick(getattr(pair, member)) for pair in r.pairs if getattr(pair, member).counts]
        if not values:
            return Value("–")
        s = summary(values)
        other = [pick(getattr(p, _other(member))) for p in r.pairs if getattr(p, _other(member)).counts]
        ahead = bool(other) and ((s.mean > summary(other).mean) if accuracy else (s.mean < summary(other).mean))
        return Value(spread_text(values, 2 if accuracy else 3, r.count(member, "diverged")), strong=ahead)

    bodies = {member: layout.grid(partial(show, member=member)) for member in MEMBERS}
    rows: list[list[Value | str]] = []
    for dense, sparse in zip(bodies["dense"], bodies["sparse"], strict=True):
        rows.append([dense[0], "dense", *dense[1:]])
        rows.append([dense[0], "sparse", *sparse[1:]])
    unit = "test accuracy (%)" if accuracy else "test loss"
    caption = (
        f"Mean ± standard deviation of the last epoch's {unit} over widths and seeds (number of runs). Bold: the "
        "better member of the pair. † n: diverged runs among them."
    )
    title = "Test accuracy (%)" if accuracy else "Test loss"
    return Table(title, caption, ["", "", *layout.columns], rows, labels=2)


def _other(member: str) -> str:
    return MEMBERS[1 - MEMBERS.index(member)]


def kendall_table(rows: Sequence[TauRow], kind: str) -> Table:
    """|Kendall tau| of the gradient-flow measures with the outcomes (001 Table 3.1); bold: the largest of a column."""
    chosen = [row for row in rows if row.kind == kind]
    columns = [(member, outcome) for member in MEMBERS for outcome in OUTCOMES]
    measures = list(dict.fromkeys(row.measure for row in chosen))
    at = {(row.measure, row.member, row.outcome): row.average for row in chosen}
    best = {
        column: max((t.mean for m in measures if not isnan((t := at[(m, *column)]).mean)), default=None)
        for column in columns
    }
    body: list[list[Value | str]] = []
    for measure in measures:
        line: list[Value | str] = [MEASURE_NAMES.get(measure, measure)]
        for column in columns:
            tau = at[(measure, *column)]
            hint = f"{tau.counted} configurations; {tau.constant} without a tau (constant or too short)"
            text = "–" if isnan(tau.mean) else f"{tau.mean:.3f}"
            line.append(Value(text, hint=hint, strong=tau.mean == best[column]))
        body.append(line)
    header = ["", *(f"{member}: {outcome.replace('_', ' ')}" for member, outcome in columns)]
    if kind == "along training":
        title = "Gradient flow and generalisation along training (Kendall)"
        what = "over the measuring points of each run, averaged over all runs"
    else:
        title = "Gradient flow and generalisation across runs (Kendall)"
        what = (
            "across the widths and seeds of each cell, between the measure's average over the points and the last "
            "epoch's outcome, averaged over cells"
        )
    counted = [at[(m, *c)] for m in measures for c in columns]
    without = max((t.constant for t in counted), default=0)
    caption = f"Average |τ| {what}. Bold: the largest of the column. At most {without} had no τ (a constant series)."
    return Table(title, caption, header, body)


def parameter_table(results: Sequence[CellResult], known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Active weights of the pairs, and the parameters that are not weights, which may differ."""
    rows: dict[tuple[int, int, int, int], list[Value | str]] = {}
    variants: dict[tuple[int, int, int, int], dict[str, None]] = {}
    for r in results:
        for pair in r.pairs:
            sparse, dense = known.get(pair.sparse.run), known.get(pair.dense.run)
            if not sparse or not dense or not sparse["active"] or not dense["active"]:
                continue
            key = (pair.dense_width, sum(sparse["active"].values()), sparse["others"], dense["others"])
            variants.setdefault(key, {})[f"{r.cell.variant} {r.cell.activation}"] = None
            if key not in rows:
                rows[key] = _parameters(sparse, dense)
    body = [[str(key[0]), ", ".join(variants[key]), *rows[key]] for key in sorted(rows, key=lambda key: key[0])]
    header = [
        "dense width", "variants", "active weights per layer", "total", "per layer, sparse and dense",
        "other parameters, sparse", "dense", "compact layers", "FLOPs per example, sparse", "dense",
    ]  # fmt: skip
    caption = (
        "Active weights are equal layer by layer by construction. Other parameters (normalisation, activations) are "
        "not weights and may differ between the members; they are counted here."
    )
    return Table("What was compared", caption, header, body)


def _parameters(sparse: Mapping[str, Any], dense: Mapping[str, Any]) -> list[Value | str]:
    """What the two members of a pair have: weights layer by layer, the rest, and their work."""
    layers, execution = sparse["active"], sparse["execution"]
    return [
        " + ".join(f"{n:,}" for n in layers.values()),
        f"{sum(layers.values()):,}",
        "equal" if layers == dense["active"] else Value("NOT equal", strong=True),
        f"{sparse['others']:,}",
        f"{dense['others']:,}",
        f"{sum(how == 'compact' for how in execution.values())} of {len(execution)}",
        f"{sparse['inference_flops']:,}",
        f"{dense['inference_flops']:,}",
    ]


def run_rows(
    results: Sequence[CellResult], known: Mapping[str, Mapping[str, Any]], statuses: Mapping[str, str]
) -> tuple[list[str], list[list[object]]]:
    """Every run of the study with its place in it and its outcome, as `runs.csv` has them."""
    header = ["run", "optimizer", "variant", "activation", "dense_width", "seed", "member", *OUTCOME]
    rows: list[list[object]] = []
    for r in results:
        for pair in r.pairs:
            for member in MEMBERS:
                name = getattr(pair, member).run
                place = [name, r.cell.optimizer, r.cell.variant, r.cell.activation, pair.dense_width, pair.seed, member]
                rows.append([*place, *outcome(name, known, statuses)])
    return header, rows
