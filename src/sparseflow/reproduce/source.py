"""Finished runs under the names that a paper gives them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

from sparseflow.measure import MEASURES
from sparseflow.report import Study
from sparseflow.report.arms_updates import AFTER, BEFORE, CHANGE, with_changes
from sparseflow.reproduce.experiment import DATASETS, Experiment, Part
from sparseflow.reproduce.shrink import papers_sizes
from sparseflow.search import Found, Quest, stored
from sparseflow.study import (
    OUTCOMES,
    ArmResult,
    ArmsSpec,
    CellResult,
    CompareSpec,
    DataFacts,
    FactsBook,
    MemberResult,
    Series,
    arm_results,
    arms_of,
    average_over_points,
    cells,
    compare_cells,
    validate,
    widths_of,
)

_CURVATURE = {"eigenvalue": ("top_eigenvalue_1", 1.0), "negative eigenvalue": ("bottom_eigenvalue_1", -1.0)}
"""Of the Hessian along training: the largest eigenvalue, and the size of the most negative one."""

QUANTITIES = (
    "accuracy",
    "loss",
    *(m.replace("egf", "EGF") for m in MEASURES),
    *_CURVATURE,
    "norm_change",
)
"""What may be known of a run: its last epoch's test accuracy in per cent and loss, averages over its points, and the
average change of the gradient norm at its updates of masks (004 Fig. 3)."""


SEARCHED_BY, DENSE = "Search Alg", "Dense Baseline"
"""The axis of 001 Tables B.1 and B.2 that names the sampler, and its label of the network that no search found."""


@dataclass(frozen=True)
class Observed:
    """A run that has ended.

    Attributes:
        labels: axis -> what the paper calls it; axes that say nothing of this run are absent.
        values: quantity -> number.
    """

    labels: Mapping[str, str]
    seed: int
    values: Mapping[str, float]

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether no label contradicts those wanted; a list stands for any of its entries."""
        return all(
            axis not in self.labels or self.labels[axis] in {str(v) for v in _listed(value)}
            for axis, value in wanted.items()
        )


Pairing = tuple[tuple[tuple[str, str], ...], int]
"""What the two runs of a pair have in common: labels, and the seed."""


def by_pair(runs: Iterable[Observed], told_apart: Collection[str], quantity: str) -> dict[Pairing, list[float]]:
    """The quantity of runs, by all labels but those of the axes that tell the members of a pair apart, and by seed."""
    found: dict[Pairing, list[float]] = {}
    for run in runs:
        rest = tuple(sorted((axis, label) for axis, label in run.labels.items() if axis not in told_apart))
        found.setdefault((rest, run.seed), []).append(run.values[quantity])
    return found


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


class Source:
    """A study of an experiment as the store has it.

    Args:
        kind: of the study, as the store names it.
    """

    def __init__(self, experiment: Experiment, part: Part, study: Study, kind: str) -> None:
        self.experiment, self.part, self.study, self.study_kind = experiment, part, study, kind
        self._facts = study.content["facts"]

    @cached_property
    def series(self) -> Series:
        """Of every run, what was measured at its points."""
        curvature = [metric for metric, _ in _CURVATURE.values()]
        return self.study.store.series([*MEASURES, *OUTCOMES, *curvature], points_only=True)

    @cached_property
    def _updates(self) -> Series:
        return with_changes(self.study.store.series([BEFORE, AFTER]))

    @cached_property
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        return self.study.store.results()

    @cached_property
    def cells(self) -> list[CellResult]:
        """Of a capacity-matched comparison; none of another study."""
        if self.part.kind != "pairs":
            return []
        spec, facts = self.compare, self.data_facts
        return compare_cells(cells(spec, facts), self.results, facts, spec.statistics)

    @cached_property
    def compare(self) -> CompareSpec:
        return validate(CompareSpec, self.study.content["spec"])

    @cached_property
    def data_facts(self) -> DataFacts:
        return DataFacts(**self._facts)

    @cached_property
    def arms(self) -> list[ArmResult]:
        """Of a study of arms; none of another study."""
        if self.part.kind != "arms":
            return []
        spec = self.arms_spec
        return arm_results(spec, arms_of(spec), self.results, FactsBook.load(self._facts))

    @cached_property
    def arms_spec(self) -> ArmsSpec:
        return validate(ArmsSpec, self.study.content["spec"])

    @cached_property
    def searches(self) -> Sequence[tuple[Quest, Found, Sequence[ArmResult]]]:
        """Of a study of searches, with what was trained again after each."""
        if self.part.kind != "search":
            return []
        book = FactsBook.load(self._facts)
        found = []
        for quest in stored(self.study.content):
            one = Found.of(quest, self.study.store, self.results)
            last = quest.finals(one.trials)
            after = arm_results(last, arms_of(last), self.results, book) if last is not None else []
            found.append((quest, one, after))
        return found

    @cached_property
    def observed(self) -> list[Observed]:
        """Every run that has ended, diverged ones as guessing."""
        kinds = {"pairs": self._pairs, "arms": self._of_arms, "search": self._of_searches}
        return list(kinds[self.part.kind]()) if self.part.kind in kinds else []

    @cached_property
    def runs(self) -> list[str]:
        """The names of the runs that the study's numbers rest on."""
        paired = [m.run for cell in self.cells for pair in cell.pairs for m in (pair.sparse, pair.dense)]
        armed = [member.run for result in self.arms for member in result.members]
        tried = [trial.run for _, found, _ in self.searches for trial in found.trials]
        again = [member.run for _, _, after in self.searches for result in after for member in result.members]
        return list(dict.fromkeys([*paired, *armed, *tried, *again]))

    def cell_labels(self, result: CellResult) -> dict[str, str]:
        """What a paper calls a cell of a comparison."""
        cell = result.cell
        own = {"Optimizer": cell.optimizer, "Variant": cell.variant, "Activation": _titled(cell.activation)}
        return self.called(own)

    def called(self, own: Mapping[str, str]) -> dict[str, str]:
        """Labels of one of its runs or arms, with those of the whole study, as the paper has them."""
        labels = {**own, **self.part.labels}  # what a study stands for in the paper, whatever it was trained on
        relabel = self.experiment.relabel
        return {axis: str(relabel.get(axis, {}).get(label, label)) for axis, label in labels.items()}

    def _pairs(self) -> Iterator[Observed]:
        named = self._paper_widths()
        for result in self.cells:
            common = self.cell_labels(result)
            for pair in result.pairs:
                for density, member in (("Sparse", pair.sparse), ("Dense", pair.dense)):
                    if member.counts:
                        labels = common | {"Density": density, "Dense width": named[pair.dense_width]}
                        values = {"accuracy": 100 * member.accuracy, "loss": member.loss}
                        yield Observed(labels, pair.seed, values | self._flow(member.run))

    def _paper_widths(self) -> dict[int, str]:
        """Dense width -> the paper's at the same part of the maximum width, whatever the scale made of it."""
        spec = self.compare
        widest = papers_sizes(spec.data.name)[2] + 4
        here = widths_of(spec, self.data_facts.input_size)
        parts = [w if isinstance(w, float) else w / max(here) for w in spec.compare.dense_widths]
        return {width: str(int(part * widest + 0.5)) for width, part in zip(here, parts, strict=True)}

    def _of_arms(self) -> Iterator[Observed]:
        for result in self.arms:
            labels = self.arm_labels(result)
            if labels is None or result.choice.winner is None:
                continue
            data = result.choice.winner.spec.data.name
            own = self.called({"Dataset": DATASETS.get(data, data)} | labels)
            for seed, member in zip(self.arms_spec.run_seeds, result.members, strict=True):
                if member.counts:
                    values = {"accuracy": 100 * member.accuracy, "loss": member.loss}
                    yield Observed(own, seed, values | self._flow(member.run))

    def _of_searches(self) -> Iterator[Observed]:
        """The runs after the searches: of the winners, and of the dense network under the name that its tables have.

        Of the searches of one name (one density for all layers, one for each) the better winner stands for both, as in
        the paper.
        """
        best: dict[str, tuple[float, dict[str, str], Quest, Sequence[ArmResult]]] = {}
        seen = set()
        for quest, found, after in self.searches:
            labels, winner = self.search_labels(quest), found.winner
            if winner is not None and after and winner.score > best.get(str(labels), (-1.0,))[0]:
                best[str(labels)] = (winner.score, labels, quest, after)
        for _, labels, quest, after in best.values():
            arms = {result.arm.name: result for result in after}
            for arm, own in (("winner", labels), ("dense", {**labels, SEARCHED_BY: DENSE})):
                for seed, member in zip(quest.spec.run_seeds, arms[arm].members, strict=True):
                    if member.counts and (member.run, str(own)) not in seen:
                        seen.add((member.run, str(own)))  # searches of one network share the dense one
                        yield Observed(own, seed, self._of_member(member))

    def _of_member(self, member: MemberResult) -> dict[str, float]:
        run = self.results[member.run]
        values = {"accuracy": 100 * member.accuracy, "loss": member.loss, "weights": float(sum(run["active"].values()))}
        learned = run["final"].get("train_accuracy")
        return values if learned is None else values | {"training accuracy": 100 * learned}

    def search_labels(self, quest: Quest) -> dict[str, str]:
        """What a paper calls a search: its network, its data set's part, its optimiser and its sampler."""
        run = quest.spec.plain()
        return self.called(
            {
                "Model": run.model.name,
                "Hidden layers": str(run.model.depth),
                "Optimizer": run.optimizer.name,
                SEARCHED_BY: quest.spec.sampler.name,
            }
        )

    def arm_labels(self, result: ArmResult) -> dict[str, str] | None:
        """What the paper calls an arm; None for one that it has no name for."""
        calls = self.experiment.calls.get(result.arm.name, self.experiment.calls.get(result.arm.entry))
        if calls is None:
            return None
        axes = calls.get("axes", {})
        fixed = {axis: str(label) for axis, label in calls.items() if axis != "axes"}
        return fixed | {name: result.arm.levels[axis] for axis, name in axes.items()}

    def _flow(self, run: str) -> dict[str, float]:
        found = {m.replace("egf", "EGF"): average_over_points(self.series, run, m) for m in MEASURES}
        for name, (metric, sign) in _CURVATURE.items():
            found[name] = sign * average_over_points(self.series, run, metric)
        found["norm_change"] = average_over_points(self._updates, run, CHANGE)
        return {name: value for name, value in found.items() if isfinite(value)}


def _titled(activation: str) -> str:
    """An activation as the papers write it."""
    return _ACTIVATIONS.get(activation, activation)


_ACTIVATIONS = {
    "relu": "ReLU",
    "swish": "Swish",
    "prelu": "PReLU",
    "srelu": "SReLU",
    "sigmoid": "Sigmoid",
    "elu": "ELU",
    "mish": "Mish",
    "pswish": "PSwish",
}
