"""A search made ready: its specification, the space of its network and what it has tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparseflow.core import BadSpec
from sparseflow.search.finals import final_runs, finals, stand_in
from sparseflow.search.outcome import Tried, tried
from sparseflow.search.space import Space, Vector
from sparseflow.search.spec import SearchSpec, searches
from sparseflow.study import ArmsSpec, DataFacts, Results, RunSpec, Store, Trial, validate
from sparseflow.study.build import check_own


@dataclass(frozen=True)
class Quest:
    """One search of a study, ready to be carried out.

    Attributes:
        label: what sets it apart from the study's others; empty where there are none.
        classes: of its data.
    """

    label: str
    spec: SearchSpec
    space: Space
    classes: int

    @property
    def kind(self) -> str:
        """What it has in common with the same search from another seed."""
        return ", ".join(part for part in self.label.split(", ") if part and part != f"seed {self.spec.seed}")

    def dump(self) -> dict[str, Any]:
        """What `stored` needs beside the specification."""
        return {**asdict(self.space), "classes": self.classes}

    def entered(self, store: Store) -> list[Trial]:
        """Its trials, as the store has them."""
        return store.trials(self.spec.study_name)[: self.spec.samples]

    def trials(self, store: Store, results: Results) -> list[Tried]:
        """What it has tried so far, and what came of it."""
        return tried(self.spec, self.entered(store), results, self.space, self.classes)

    def run(self, vector: Vector) -> RunSpec:
        """The run that tries a vector."""
        return self.spec.trial(vector, len(self.space.sizes))

    def finals(self, trials: Sequence[Tried]) -> ArmsSpec | None:
        """The study of arms that tells what it found; None before its last trial has ended."""
        return finals(self.spec, trials, self.space)

    def stand_in(self, number: int) -> list[RunSpec]:
        """As many runs as that study will have, each about as long; of the search of this number."""
        return final_runs(stand_in(self.spec, self.space, number))


def quests(spec: SearchSpec, facts: Callable[[RunSpec], DataFacts]) -> list[Quest]:
    """The searches of a study.

    Raises:
        BadSpec: for mistakes of any of them.
    """
    found = []
    for label, one in searches(spec):
        data = facts(one.plain())
        check_own(one.plain(), data.input_shape, data.classes)
        space = one.space(data)
        if one.transfer is not None and len(one.transfer.vector) != space.dimensions:
            raise BadSpec([f"transfer.vector: has {len(one.transfer.vector)} densities, this space {space.dimensions}"])
        found.append(Quest(label, one, space, data.classes))
        found[-1].run(found[-1].space.lowest)  # a mistake that only a trial has must show before the first
    return found


def stored(content: Mapping[str, Any]) -> list[Quest]:
    """The searches of a study as the store has it, without looking at their data."""
    found = []
    for (label, spec), kept in zip(searches(validate(SearchSpec, content["spec"])), content["spaces"], strict=True):
        space = {key: value for key, value in kept.items() if key != "classes"}
        found.append(Quest(label, spec, Space(**space), kept["classes"]))
    return found
