"""What a report says of every run, whatever kind of study it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparseflow.report.blocks import Table, Value

_FINAL = ["test_accuracy", "test_loss", "train_loss", "val_accuracy", "best_val_accuracy", "best_epoch", "egf_2"]

OUTCOME = [
    "status", *_FINAL, "active_weights", "other_parameters", "compact_layers", "steps", "inference_flops",
    "training_flops", "weights_digest", "data_digest", "fingerprint", "mixed", "error", "started", "finished", "wall_s",
]  # fmt: skip
"""Columns of `runs.csv` after those that say which run it is."""


def outcome(name: str, known: Mapping[str, Mapping[str, Any]], statuses: Mapping[str, str]) -> list[object]:
    """The `OUTCOME` of a run; a run without a result has a status alone."""
    k = known.get(name)
    if k is None:
        return [statuses.get(name, "not started"), *[None] * (len(OUTCOME) - 1)]
    return [
        k["status"],
        *(k["final"].get(metric) for metric in _FINAL),
        sum(k["active"].values()) or None,
        k["others"],
        sum(how == "compact" for how in k["execution"].values()),
        k["step"],
        k["inference_flops"],
        k["training_flops"],
        k["digest"],
        k["data_digest"],
        k["fingerprint"],
        k["mixed"],
        str(k["error"]).strip().splitlines()[-1] if k["error"] else "",
        k["started"],
        k["finished"],
        round(k["wall_s"], 3),
    ]


def run_table(place: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Every run: the columns that say which it is, and the outcomes that people look for."""
    wanted = ["status", "test_accuracy", "test_loss", "train_loss", "active_weights", "wall_s", "error"]
    columns = [header.index(name) for name in (*place, *wanted)]

    def text(value: object) -> str:
        return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    body = [[Value(text(row[c])) for c in columns] for row in rows]
    return Table("All runs", "runs.csv has more columns.", [header[c] for c in columns], body, folded=True)
