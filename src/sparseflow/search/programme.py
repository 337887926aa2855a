"""What a search does: its trials, then the runs that tell what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparseflow.core import BadSpec
from sparseflow.search.finals import final_runs, finals, middle, stand_in
from sparseflow.search.outcome import Tried, tried
from sparseflow.search.space import Space, Vector
from sparseflow.search.spec import SearchSpec, searches
from sparseflow.search.trials import Trials
from sparseflow.study import (
    ArmsSpec,
    DataFacts,
    Desk,
    Listed,
    RunSpec,
    Store,
    Supply,
    grouped,
    legacy,
    validate,
    with_predecessors,
)
from sparseflow.study.build import check_own
from sparseflow.study.lineage import Legacy


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

    def trials(self, store: Store) -> list[Tried]:
        """What it has tried so far."""
        found = store.trials(self.spec.study_name)[: self.spec.samples]
        return tried(self.spec, found, store.results(), self.space, self.classes)

    def run(self, vector: Vector) -> RunSpec:
        """The run that tries a vector."""
        return self.spec.trial(vector, len(self.space.sizes))

    def finals(self, store: Store) -> ArmsSpec | None:
        """The study of arms that tells what it found; None before its last trial has ended."""
        return finals(self.spec, self.trials(store), self.space)

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


class Search:
    """The programme of a study of searches: one after the other, then what tells of them all."""

    def __init__(self, quests: Sequence[Quest]) -> None:
        self._quests = quests
        self._stand_ins = [quest.stand_in(number) for number, quest in enumerate(quests)]

    def count(self, store: Store) -> int:
        return sum(quest.spec.samples for quest in self._quests) + len(self._after(store, guess=True))

    def legacy(self, store: Store) -> Legacy:
        return legacy(self.known(store))

    def known(self, store: Store) -> list[RunSpec]:
        tried = [quest.run(trial.vector) for quest in self._quests for trial in quest.trials(store)]
        return with_predecessors([*tried, *self._after(store)])

    def _after(self, store: Store, *, guess: bool = False) -> list[RunSpec]:
        """The runs after the searches, each once; a guess stands for those of a search that has not ended."""
        runs: list[RunSpec] = []
        for quest, instead in zip(self._quests, self._stand_ins, strict=True):
            study = quest.finals(store)
            runs += final_runs(study) if study is not None else instead if guess else []
        return with_predecessors(runs)

    def supplies(self, desk: Desk) -> Iterator[Supply]:
        for quest in self._quests:
            yield Trials(quest.spec, quest.space, quest.classes, desk)
        yield Listed(grouped(desk.lacking(self._after(desk.store)), desk.jobs, desk.facts))

    def expected(self) -> list[RunSpec]:
        """As many runs as there will be, each as long as it may be: to estimate the time."""
        trials = [quest.run(middle(quest.space)) for quest in self._quests for _ in range(quest.spec.samples)]
        return [*trials, *with_predecessors(run for runs in self._stand_ins for run in runs)]
