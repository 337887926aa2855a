"""Tables of how alike finished networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan

from sparseflow.measure.similarity import Comparison
from sparseflow.reproduce.measured import Measured, Place, agrees
from sparseflow.reproduce.readers.named import named_arms
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import Source
from sparseflow.stats import Summary
from sparseflow.study import FactsBook, Likened, arms_of, likened, likeness_asked

Quantity = Callable[[Comparison], Summary | float | None]

_QUANTITIES: Mapping[str, tuple[Quantity, float, str]] = {
    "(Top-1) Test Acc.": (lambda c: c.accuracy, 100.0, "networks"),
    "Test Acc. (Top-1)": (lambda c: c.accuracy, 100.0, "networks"),
    "Ensemble": (lambda c: c.ensemble, 100.0, "their mean softmax probabilities"),
    "Disagree.": (lambda c: c.disagreement, 1.0, "pairs"),
    "Pairwise Disagree.": (lambda c: c.disagreement, 1.0, "pairs"),
    "Disagree. w/ Pruned": (lambda c: c.reference_disagreement, 1.0, "networks with the pruned one"),
    "Pairwise KL": (lambda c: c.kl, 1.0, "ordered pairs"),
    "KL w/ Pruned": (lambda c: c.to_reference, 1.0, "KL(network || pruned)"),
    "5-model JSD": (lambda c: c.jsd, 1.0, "all networks together"),
    "JSD w/ Pruned": (lambda c: c.reference_jsd, 1.0, "networks with the pruned one"),
}
"""Heading of a column -> what it is of a comparison, its unit, and what it is taken over."""

_ACCURACIES = ("(Top-1) Test Acc.", "Test Acc. (Top-1)")


@readers.add("likeness", cite="004 Tables 2 and 6")
def likeness(sources: Sequence[Source], place: Place) -> Measured | None:
    """Ensemble, disagreement and divergences of a group of networks, as the study compared them.

    Accuracies are in per cent, on the examples that the networks answered. Option: `reference` is what the paper calls
    the network that all are compared with; of it there is an accuracy alone.

    Raises:
        ValueError: for a column that no quantity stands for.
    """
    measure = str(place["Measure"])
    if measure not in _QUANTITIES:
        raise ValueError(f"no quantity {measure!r} (known: {', '.join(_QUANTITIES)})")
    rest = {axis: label for axis, label in place.items() if axis != "Measure"}
    for source in sources:
        reference = source.experiment.options.get("reference")
        if reference and agrees(reference, rest):
            return _of_reference(source) if measure in _ACCURACIES else None
        found = compared(source)
        group = next((r.arm.name for labels, r in named_arms(source) if agrees(labels, rest)), None)
        row = next((row for row in found.likeness.rows if row.group == group), None) if found else None
        if row is not None:
            quantity, unit, over = _QUANTITIES[measure]
            alone = row.networks < 2 and measure == "Ensemble"  # of one network it is that network
            return None if alone else _measured(quantity(row.comparison), unit, row.networks, over)
    return None


def compared(source: Source) -> Likened | None:
    """What a study found of its networks; None before it has ended."""
    spec = source.arms_spec
    if spec.likeness is None:
        return None
    facts = FactsBook.load(source.study.content["facts"])
    what = likeness_asked(spec, arms_of(spec), source.results, facts, source.study.runs)
    return None if what.reference is None or what.missing else likened(spec, what, source.results, source.study.runs)


def _of_reference(source: Source) -> Measured | None:
    spec = source.arms_spec
    if spec.likeness is None:
        return None
    facts = FactsBook.load(source.study.content["facts"])
    one = likeness_asked(spec, arms_of(spec), source.results, facts, source.study.runs).reference
    return None if one is None or one.accuracy is None else Measured(100.0 * one.accuracy, hint=one.label)


def _measured(of: Summary | float | None, unit: float, networks: int, over: str) -> Measured | None:
    if of is None:
        return None
    if isinstance(of, Summary):
        return Measured(unit * of.mean, unit * of.std if of.n > 1 else nan, of.n, hint=f"{of.n} {over}")
    return Measured(unit * of, hint=f"{networks} networks, {over}")
