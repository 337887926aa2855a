"""The report of a study of named arms."""

from __future__ import annotations

from collections.abc import Sequence

from sparseflow.measure import MEASURES
from sparseflow.report import arms_density as density
from sparseflow.report import arms_figures as figures
from sparseflow.report import arms_layers as layers
from sparseflow.report import arms_likeness as likeness
from sparseflow.report import arms_tables as tables
from sparseflow.report import arms_updates as updates
from sparseflow.report.blocks import Block, Section, Text, write_csv
from sparseflow.report.common import provenance
from sparseflow.report.registry import Report, Study, reports
from sparseflow.report.runs import run_table
from sparseflow.study import ArmResult, ArmsSpec, FactsBook, arm_results, arms_of, validate


@reports.add("arms", cite="beyond the papers")
def arms_report(study: Study) -> Report:
    """Named arms on common seeds: outcomes, paired tests, curves along training, choices of grids."""
    spec = validate(ArmsSpec, study.content["spec"])
    facts = FactsBook.load(study.content["facts"])
    known = study.store.results()
    arms = arms_of(spec)
    results = arm_results(spec, arms, known, facts)
    crosses = tables.cross_tables(results)
    header, rows = tables.run_rows(results, spec, known, study.store.statuses())
    write_csv(study.folder / "runs.csv", header, rows)
    write_csv(study.folder / "arms.csv", *tables.arm_rows(results, known, facts))
    _write_choices(study, results)
    updates.write_rows(study, results)
    material = _material(study, spec, results)
    tested = any(r.against for r in results)
    ended = {name: known[name] for name in {str(row[0]) for row in rows} if name in known}
    sections = [
        Section(
            "The answer",
            [
                *([Text(spec.description)] if spec.description else []),
                Text(_answer(results, spec)),
                tables.arm_table(results, known, facts),
                tables.cost_table(results, known, facts),
                *(table for table, _ in crosses),
                *density.density_figures(material),
                figures.dot_figure(results, material.reference, study.figures),
                *([tables.test_table(results, spec)] if tested else []),
            ],
        ),
        Section(
            f"Likeness with {spec.likeness.reference}" if spec.likeness else "",
            likeness.blocks(study, spec, arms, known, facts),
        ),
        Section("Along training", _curves(material)),
        Section("Changes of the masks", updates.blocks(material)),
        Section("Activations", layers.blocks(study, material, facts)),
        Section("Choices", [tables.grid_table(r.choice, spec) for r in results if r.arm.chosen]),
        Section("What these numbers can and cannot say", [Text(words) for words in _limits(results, spec)]),
        Section("Every run", [run_table(header[:5], header, rows)]),
        provenance(study.content, facts.different(), ended),
    ]
    return Report(spec.title, [section for section in sections if section.blocks])


def _material(study: Study, spec: ArmsSpec, results: Sequence[ArmResult]) -> figures.Material:
    wanted = [curve.metric for curve in (*figures.OUTCOME_CURVES, *figures.CURVATURE_CURVES)]
    series = updates.with_changes(study.store.series([*wanted, *MEASURES, *updates.RECORDED]))
    reference = next((r for r in results if r.arm.name == spec.versus), None)
    return figures.Material(results, reference, series, study.store.epochs(), spec.panels, study.figures)


def _curves(material: figures.Material) -> list[Block]:
    drawn = [
        figures.curve_figure(material, figures.OUTCOME_CURVES, "Loss and accuracy along training", "curves"),
        figures.curve_figure(material, figures.FLOW_CURVES, "Gradient flow along training", "gradient-flow"),
        figures.curve_figure(material, figures.CURVATURE_CURVES, "Curvature along training", "curvature"),
    ]
    return [figure for figure in drawn if figure is not None]


def _answer(results: Sequence[ArmResult], spec: ArmsSpec) -> str:
    ended = [r for r in results if r.counted]
    missing = sum(r.missing for r in results)
    if not ended:
        return "No run on the study's seeds has ended yet."
    best = max(ended, key=lambda r: r.accuracy)
    words = f"Of {len(ended)} arms {best.arm.name} has the highest mean test accuracy, {100 * best.accuracy:.2f} %."
    tested = [r.against for r in results if r.against and r.against.test]
    if tested:
        sure = [r.arm.name for r in results if r.against and r.against.holm < spec.statistics.alpha]
        words += (
            f" {len(sure)} of {len(tested)} tests against {spec.versus} are significant at "
            f"{spec.statistics.alpha:g} when the table is corrected as a whole (Holm)"
        )
        words += f": {', '.join(sure)}." if sure else "."
    if missing:
        words += f" {missing} runs have not ended: the tables are preliminary."
    return words


def _limits(results: Sequence[ArmResult], spec: ArmsSpec) -> list[str]:
    words = []
    if any(r.arm.chosen for r in results):
        words.append(
            "Winners of grids were chosen by validation accuracy and trained again on seeds that the choice had not "
            "seen."
            if spec.score == "val"
            else "Winners of grids were chosen by TEST accuracy, as the papers do, and trained again on other seeds. "
            "The test set has been used to choose, so these arms' accuracies are too high as estimates of accuracy on "
            "new data, the more so the larger the grid; set score: val and a data.val_fraction to avoid that."
        )
        words.append("An arm with a grid had more trainings than one without, which the comparison does not charge.")
    tests = sum(r.against is not None for r in results)
    if tests:
        words.append(
            f"Tests are paired by seed: a seed sets initial weights, random masks, batch order and validation split of "
            f"all arms. {tables.reachable(len(spec.run_seeds), tests, spec)}"
        )
    alone = [r.arm.name for r in results if r.against is None and r.arm.name != spec.versus]
    if tests and alone:
        words.append(f"Not tested, for want of a reference on the same data: {', '.join(alone)}.")
    words.append(
        "The last epoch is reported, never the best one on test data. Standard deviations are over seeds alone, on one "
        "test set."
    )
    diverged = {r.arm.name: r.diverged for r in results if r.diverged}
    rule = (
        "they count as guessing (accuracy 1/classes, loss log(classes))"
        if spec.statistics.diverged == "chance"
        else "they are left out"
    )
    listed = ", ".join(f"{n} of {name}" for name, n in diverged.items())
    words.append(f"Diverged runs: {listed}; {rule}." if diverged else "No run on the study's seeds diverged.")
    return words


def _write_choices(study: Study, results: Sequence[ArmResult]) -> None:
    lines = [
        [r.arm.name, p.point.label, p.ended, p.diverged, p.mean, p.point is r.choice.winner]
        for r in results
        for p in r.choice.points
    ]
    if lines:
        write_csv(study.folder / "choices.csv", ["arm", "point", "ended", "diverged", "mean_score", "chosen"], lines)
