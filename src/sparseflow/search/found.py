"""A search as the store has it: what a report or another search reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from sparseflow.search.outcome import Tried, median, winner
from sparseflow.search.pareto import front
from sparseflow.search.quest import Quest
from sparseflow.study import Results, Store, Verdict


@dataclass(frozen=True)
class Found:
    """A search, its trials in the order of their numbers, and its verdicts in the order in which they fell."""

    quest: Quest
    trials: Sequence[Tried]
    verdicts: Sequence[Verdict]

    @classmethod
    def of(cls, quest: Quest, store: Store, results: Results) -> Found:
        return cls(quest, quest.trials(store, results), store.verdicts(quest.spec.study_name))

    @property
    def winner(self) -> Tried | None:
        return winner(self.trials)

    @property
    def median(self) -> Tried | None:
        return median(self.trials)

    @property
    def ended(self) -> bool:
        return len(self.trials) == self.quest.spec.samples and all(t.status != "open" for t in self.trials)

    @property
    def whole(self) -> list[Tried]:
        """Trials that went all their way and have a score."""
        return [trial for trial in self.trials if trial.whole and isfinite(trial.score)]

    @property
    def front(self) -> list[Tried]:
        """Whole trials that none beats in score and active weights both, from few weights to many."""
        whole = self.whole
        return [whole[k] for k in front([t.score for t in whole], [t.active for t in whole])]

    def share(self, trial: Tried) -> float:
        """The part of the weights of the layers in question that is active."""
        return self.quest.space.total_density(trial.vector)
