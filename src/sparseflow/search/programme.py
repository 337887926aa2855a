"""What a search does: its trials, then the runs that tell what they found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparseflow.search.finals import final_runs, middle
from sparseflow.search.outcome import Tried
from sparseflow.search.quest import Quest
from sparseflow.search.trials import Trials
from sparseflow.study import Desk, Listed, RunSpec, Store, Supply, grouped, legacy, with_predecessors
from sparseflow.study.lineage import Legacy


class Search:
    """The programme of a study of searches: one after the other, then what tells of them all."""

    def __init__(self, quests: Sequence[Quest]) -> None:
        self._quests = quests
        self._stand_ins = [quest.stand_in(number) for number, quest in enumerate(quests)]

    def count(self, store: Store) -> int:
        return sum(quest.spec.samples for quest in self._quests) + len(self._after(self._trials(store), guess=True))

    def legacy(self, store: Store) -> Legacy:
        return legacy(self.known(store))

    def known(self, store: Store) -> list[RunSpec]:
        found = self._trials(store)
        tried = [quest.run(trial.vector) for quest, of in zip(self._quests, found, strict=True) for trial in of]
        return with_predecessors([*tried, *self._after(found)])

    def _trials(self, store: Store) -> list[list[Tried]]:
        """Of every search."""
        results = store.results()
        return [quest.trials(store, results) for quest in self._quests]

    def _after(self, found: Sequence[Sequence[Tried]], *, guess: bool = False) -> list[RunSpec]:
        """The runs after the searches, each once; a guess stands for those of a search that has not ended."""
        runs: list[RunSpec] = []
        for quest, trials, instead in zip(self._quests, found, self._stand_ins, strict=True):
            study = quest.finals(trials)
            runs += final_runs(study) if study is not None else instead if guess else []
        return with_predecessors(runs)

    def supplies(self, desk: Desk) -> Iterator[Supply]:
        for quest in self._quests:
            yield Trials(quest, desk)
        yield Listed(grouped(desk.lacking(self._after(self._trials(desk.store))), desk.jobs, desk.facts))

    def expected(self) -> list[RunSpec]:
        """As many runs as there will be, each as long as it may be: to estimate the time."""
        trials = [quest.run(middle(quest.space)) for quest in self._quests for _ in range(quest.spec.samples)]
        return [*trials, *with_predecessors(run for runs in self._stand_ins for run in runs)]
