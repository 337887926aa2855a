"""What a training has measured so far."""

from __future__ import annotations

from collections.abc import Mapping

from sparseflow.core import Metric, Moment, Recorder


class History:
    """Every measured value in the order of its appearance, and the latest and best of each.

    Attributes:
        rows: (step, epoch, metric, layer, value).
        final: metric -> latest value; `best_*` at the epoch of highest validation accuracy.
    """

    def __init__(self, record: Recorder | None) -> None:
        self.rows: list[tuple[int, float, str, str, float]] = []
        self.final: dict[str, float] = {}
        self._record = record

    def note(self, at: Moment, values: Mapping[Metric, float]) -> None:
        """Enter values and pass them on to the recorder."""
        self.rows.extend((at.step, at.epoch, m.name, m.layer, float(v)) for m, v in values.items())
        whole = {m.name: float(v) for m, v in values.items() if not m.layer and m.name != "point"}
        self.final |= whole
        best = self.final.get("best_val_accuracy", float("-inf"))
        if whole.get("val_accuracy", float("-inf")) > best:
            # Chosen on the validation split; the test values of that moment stand beside it.
            evaluated = {name: value for name, value in whole.items() if name.startswith(("test_", "val_"))}
            self.final |= {f"best_{name}": value for name, value in evaluated.items()} | {"best_epoch": at.epoch}
        if self._record is not None:
            self._record(at, values)
