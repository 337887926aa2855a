"""The report of single trainings: curves and outcome of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseflow.measure import MEASURES
from sparseflow.report.blocks import Figure, Section, Table, Text, write_csv
from sparseflow.report.common import provenance
from sparseflow.report.figures import COLOURS, look, panels, save
from sparseflow.report.registry import Report, Study, reports
from sparseflow.study import DataFacts, RunSpec, validate

CURVES = ("train_loss", "test_loss", "val_loss", "test_accuracy", "val_accuracy")


@reports.add("train", cite="standard")
def train_report(study: Study) -> Report:
    """One training: its outcome, its curves, its gradient flow."""
    spec = validate(RunSpec, study.content["spec"])
    facts = DataFacts(**study.content["facts"])
    result = study.store.results().get(spec.name)
    series = study.store.series([*CURVES, *MEASURES]).get(spec.name, {})
    blocks = [Text("The run has not ended yet; these are the epochs so far.")] if result is None else [_outcome(result)]
    drawn = [_curves(series, study.figures)] if series else []
    used = {spec.name: result} if result is not None else {}
    _write_curves(study.folder / "curves.csv", series)
    title = f"{spec.model.name} on {spec.data.name}"
    return Report(title, [Section("Outcome", [*blocks, *drawn]), provenance(study.content, [facts], used)])


def _outcome(result: Mapping[str, Any]) -> Table:
    final = result["final"]
    rows = [["status", result["status"] + (f": {result['error']}" if result["error"] else "")]]
    rows += [[name.replace("_", " "), f"{value:.6g}"] for name, value in final.items()]
    rows += [
        [f"active weights, {name}", f"{n:,} ({result['execution'].get(name, 'dense')})"]
        for name, n in result["active"].items()
    ]
    rows += [
        ["other parameters", f"{result['others']:,}"],
        ["FLOPs per example", f"{result['inference_flops']:,}"],
        ["training FLOPs", f"{result['training_flops']:.4g}"],
    ]
    return Table("The last epoch", "best_*: at the epoch of highest validation accuracy.", ["", ""], rows)


def _curves(series: Mapping[str, Sequence[tuple[int, float]]], folder: Path) -> Figure:
    groups = [
        ("loss", [n for n in CURVES if n.endswith("loss")]),
        ("accuracy", [n for n in CURVES if n.endswith("accuracy")]),
        ("gradient flow", list(MEASURES)),
    ]
    groups = [(label, [n for n in names if n in series]) for label, names in groups]
    groups = [(label, names) for label, names in groups if names]
    with look():
        canvas, row = panels(len(groups), share_y=False)
        for axis, (label, names) in zip(row, groups, strict=True):
            for k, name in enumerate(names):
                steps, values = zip(*series[name], strict=True)
                axis.plot(steps, values, color=COLOURS[k], label=name.replace("_", " "))
            axis.set_title(label)
            axis.set_xlabel("optimiser step")
            axis.legend()
            if label == "gradient flow":
                axis.set_yscale("log")
        rows = [[name, step, value] for _, names in groups for name in names for step, value in series[name]]
        svg = save(canvas, folder, "curves", ["metric", "step", "value"], rows)
    return Figure("Training curves", "Values along the training.", "curves", svg)


def _write_curves(path: Path, series: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    write_csv(path, ["metric", "step", "value"], [[m, s, v] for m, points in series.items() for s, v in points])
