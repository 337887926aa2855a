"""Studies of named arms and results written by hand."""

from __future__ import annotations

import csv

from sparseflow.study import ArmsSpec, DataFacts, RunResult, validate

FACTS = DataFacts("d", (1, 8, 8), 10, 100, 50, "digest")
BASE = {"data": {"val_fraction": 0.1}, "model": {"depth": 1}}
GRID = {"a": {"grid": {"optimizer.lr": [0.1, 0.01, 0.001]}}}


def facts(run):
    return FACTS


def study(arms, **fields) -> ArmsSpec:
    return validate(ArmsSpec, {"base": BASE, "arms": arms, **fields})


def ended(status="finished", test=0.5, val=0.5, loss=1.0):
    """A run's result."""
    final = {"test_accuracy": test, "test_loss": loss, "val_accuracy": val}
    final |= {"best_test_accuracy": test, "best_epoch": 2.0}
    fields = {"active": {"w": 1200}, "training_flops": 1000, "inference_flops": 10, "wall_s": 2.0}
    return RunResult(status, final if status == "finished" else {}, **fields)


def results_of(runs):
    """Run name -> fields, as the store gives them."""
    return {name: r.as_dict() | {"started": None, "finished": None} for name, r in runs.items()}


TIMES = ("started", "finished", "wall_s")


def read_tables(out):
    """Every table of a report but for times."""
    found = {}
    for name in ("runs", "arms", "choices"):
        with (out / f"{name}.csv").open() as file:
            found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return found
