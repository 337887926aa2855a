"""Tables of what goes on in the layers of finished networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from sparseflow.report.arms_layers import METRIC
from sparseflow.reproduce.measured import Measured, Place, agrees, over_runs
from sparseflow.reproduce.readers.named import named_arms
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import Source


@readers.add("zeros", cite="003 Table 1")
def zeros(sources: Sequence[Source], place: Place) -> Measured | None:
    """Activation sparsity of a stage after training: the per cent of its activations' outputs that are 0.

    003's "Layer 1" to "Layer 4" are taken for the four stages of ResNet-18. A run's number is the mean over the
    activations of the stage's blocks, which all have as many outputs, so it is the share of zeros among all of them;
    the activation of the stem belongs to no stage. The cell is the mean over runs.

    Option: `stages` is, for every label of the axis Layer, the modules that make the stage.

    Raises:
        ValueError: for a stage without a measured activation in a run that has some.
    """
    if not sources:
        return None
    modules = sources[0].experiment.options["stages"][place["Layer"]]
    rest = {axis: label for axis, label in place.items() if axis != "Layer"}
    found: list[float] = []
    for source in sources:
        last = _last(source)
        for labels, result in named_arms(source):
            if agrees(labels, rest):
                shares = [last[member.run] for member in result.members if member.counts and member.run in last]
                found += [100.0 * fmean(_of_stage(layers, modules)) for layers in shares]
    cell = over_runs(found)
    return None if cell is None else replace(cell, hint=f"{cell.n} runs; the activations of {', '.join(modules)}")


def _last(source: Source) -> Mapping[str, Mapping[str, float]]:
    """Run -> layer -> what was measured last."""
    last: dict[str, dict[str, float]] = {}
    for run, _, _, layer, _, value in source.study.store.values([METRIC]):  # in order of the steps
        last.setdefault(run, {})[layer] = value
    return last


def _of_stage(layers: Mapping[str, float], modules: Sequence[str]) -> list[float]:
    shares = [share for layer, share in layers.items() if any(layer.startswith(f"{module}.") for module in modules)]
    if not shares:
        raise ValueError(f"no activation was measured in {', '.join(modules)} (there are: {', '.join(layers)})")
    return shares
