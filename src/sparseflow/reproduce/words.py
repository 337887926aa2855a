"""What a scale changes, in words: for the page and the record of a run."""

from __future__ import annotations

from sparseflow.reproduce.experiment import Experiment
from sparseflow.reproduce.scale import STAND_INS, Scale


def rules_in_words(scale: Scale, experiment: Experiment, data: str | None = None) -> list[str]:
    """One sentence for every rule that a scale applies to an experiment."""
    kinds = {part.kind for part in experiment.parts}
    said = [] if data is None else [f"Trained on {data} in place of the paper's data."]
    if scale.full:
        return [*said, "At the paper's own scale."]
    if not kinds:
        drawn = f"at most {scale.draws} draws of masks and inputs" if scale.draws is not None else "as in the paper"
        return [f"At scale {scale.name}: {drawn}."] if experiment.makes == "signal" else []
    said.append(
        f"At scale {scale.name}: epochs are divided by {scale.epochs:,} (at least one is left), and with them the "
        "epochs and steps of schedules."
    )
    if scale.examples is not None:
        batch = scale.batch(scale.examples)
        said.append(f"At most {scale.examples:,} training examples, and batches of {batch} at most.")
    if scale.tests is not None:
        said.append(f"At most {scale.tests:,} test examples.")
    if scale.width > 1:
        said.append(
            f"Widths of perceptrons and channels of convolutional networks are divided by {scale.width}; LeNets keep "
            "theirs."
        )
    if scale.dense_widths is not None and "pairs" in kinds:
        said.append(f"{scale.dense_widths} of the five dense widths.")
    if scale.seeds is not None:
        most = max(2, scale.seeds) if any("likeness" in part.content for part in experiment.parts) else scale.seeds
        said.append(f"At most {most} seed{'s' if most > 1 else ''}.")
    if scale.points is not None:
        said.append(f"At most {scale.points} measuring points along a training.")
    if scale.samples is not None and "search" in kinds:
        said.append(f"Searches try at most {scale.samples} vectors.")
    replaced = sorted({str(part.content.get("base", {}).get("data", {}).get("name")) for part in experiment.parts})
    if data is None and (names := [name for name in replaced if name in STAND_INS]):
        said.append(f"{STAND_INS[names[0]]} stands in for {' and '.join(names)}.")
    return said
