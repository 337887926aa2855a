"""What changes of the masks did along training: gradient norms just before and after, explored weights, densities."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sparseflow.report.arms_figures import Curve, Material, curve_figure
from sparseflow.report.blocks import Block, Table, Value, write_csv
from sparseflow.report.formats import spread_text
from sparseflow.report.registry import Study
from sparseflow.study import ArmResult, Series

BEFORE, AFTER = "gradient_norm_before", "gradient_norm_after"
RECORDED = (BEFORE, AFTER, "explored", "density")
"""Metrics of the whole network that training records at every change."""

_OF_LAYERS = ("dropped", "grown")
CHANGE = "gradient_norm_change"

CURVES = (
    Curve(CHANGE, "Δ gradient norm", log=False),
    Curve("explored", "explored (%)", log=False, scale=100.0),
    Curve("density", "density (%)", log=False, scale=100.0),
)


def with_changes(series: Series) -> Series:
    """The series, and of every run that has both norms their difference, after less before (004 Fig. 3)."""
    found = {run: dict(of_run) for run, of_run in series.items()}
    for of_run in found.values():
        if BEFORE in of_run and AFTER in of_run:
            before = dict(of_run[BEFORE])
            of_run[CHANGE] = [(step, after - before[step]) for step, after in of_run[AFTER] if step in before]
    return found


def blocks(material: Material) -> list[Block]:
    """The table and the figure of mask changes; nothing where no masks changed."""
    words = (
        "At every change of the masks: the gradient's norm over active weights just after it less just before it, on "
        "the step's own batch (004 Fig. 3); the share of all weights that have ever been active; the density."
    )
    figure = curve_figure(material, CURVES, "Changes of the masks", "mask-updates", words)
    table = update_table(material)
    return [block for block in (table, figure) if block is not None]


def update_table(material: Material) -> Table | None:
    """By how much updates moved the gradient norm; None where that was not measured."""
    rows: list[list[Value | str]] = []
    for r in material.results:
        runs = [material.series.get(member.run, {}) for member in r.members]
        runs = [run for run in runs if run.get(CHANGE)]
        if not runs:
            continue
        changes = [[value for _, value in run[CHANGE]] for run in runs]
        before = [fmean(value for _, value in run[BEFORE]) for run in runs]
        mean = [fmean(values) for values in changes]
        rows.append(
            [
                r.arm.name,
                f"{fmean(len(values) for values in changes):g}",
                spread_text(before, 4),
                spread_text(mean, 4),
                spread_text([100 * a / b for a, b in zip(mean, before, strict=True) if b], 1),
                spread_text([100 * fmean(value > 0 for value in values) for values in changes], 0),
                spread_text([100 * run["explored"][-1][1] for run in runs], 1),
            ]
        )
    header = ["arm", "updates", "norm before", "change", "change (%)", "raised (%)", "explored (%)"]
    caption = (
        "Means over a run's updates, then mean ± standard deviation over seeds (number of runs). Norm: of the "
        "gradient over active weights, on the batch of the update's step. Change (%): the mean change as a part of the "
        "mean norm. Raised: updates after which it was larger. Explored: weights that have been active, at the end."
    )
    return Table("What updates do to the gradient norm", caption, header, rows) if rows else None


def write_rows(study: Study, results: Sequence[ArmResult]) -> None:
    """`updates.csv`: a line for every value that was recorded at a change of the masks, layer by layer."""
    arms = {member.run: r.arm.name for r in results for member in r.members}
    rows = [
        [arms[run], run, step, epoch, layer, metric, value]
        for run, step, epoch, layer, metric, value in study.store.values([*RECORDED, *_OF_LAYERS])
        if run in arms
    ]
    if rows:
        write_csv(study.folder / "updates.csv", ["arm", "run", "step", "epoch", "layer", "metric", "value"], rows)
