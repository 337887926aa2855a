"""The trials of a search as work for an executor: each is proposed when somebody is free to carry it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sparseflow.search.halving import Decision, Halving, Promoting, halvings
from sparseflow.search.outcome import Tried
from sparseflow.search.parego import mixed, share_of
from sparseflow.search.quest import Quest
from sparseflow.search.samplers import suggest
from sparseflow.search.space import Vector
from sparseflow.search.spec import SearchSpec
from sparseflow.study import Desk, RunResult, RunSpec, Task, Trial, Verdict


class Trials:
    """A supply of trials: those of an earlier call that did not end, those promoted, then new ones.

    Everything that decides is in the store before it is acted on, so that a search that is cut goes on as it
    would have: a vector before its run begins, a verdict before the run hears of it.
    """

    def __init__(self, quest: Quest, desk: Desk) -> None:
        self._quest, self._desk = quest, desk
        self._spec, self._space = quest.spec, quest.space
        self._study, self._store = quest.spec.study_name, desk.store
        self._trials = quest.entered(self._store)
        self._runs = {trial.run: quest.run(trial.point) for trial in self._trials}
        self._halving = _halving(quest.spec, self._store.verdicts(self._study))
        self._waiting = self._open_ones()
        self._out: set[str] = set()
        """Taken and not ended."""
        self._dry = False
        """There is nothing to promote, and nothing out that could change it."""

    def _open_ones(self) -> list[RunSpec]:
        """Trials of an earlier call that are to go on."""
        statuses = self._store.statuses()
        lacking = {run.name for run in self._desk.lacking(self._runs.values())}
        return [
            run
            for name, run in self._runs.items()
            if (name in lacking and statuses.get(name) != "halted")
            or (statuses.get(name) == "halted" and self._on(name))
        ]

    def _on(self, halted: str) -> bool:
        """Whether a run that was halted may go on after all."""
        if self._halving is None:
            return True
        latest = {decision.rung: decision.goes_on for decision in self._halving.record if decision.run == halted}
        return not latest or latest[max(latest)]

    def take(self, in_hand: Collection[str]) -> Task | None:
        self._out &= set(in_hand)
        run = self._next()
        if run is None:
            self._dry = not self._out
            return None
        self._out.add(run.name)
        return Task((run,), self._halving.rungs.epochs if self._halving is not None else ())

    def _next(self) -> RunSpec | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._halving is not None and (promoted := self._halving.promote()) is not None:
            self._enter(len(self._halving.record) - 1, promoted)
            return self._runs[promoted.run]
        while len(self._trials) < self._spec.samples:
            run = self._propose()
            if run.name in self._out or not self._desk.lacking([run]):
                continue  # another trial, or another search of this folder, is that very run
            return run
        return None

    def _propose(self) -> RunSpec:
        """A new trial, entered into the store."""
        number = len(self._trials)
        vector, origin = self._vector(number)
        run = self._quest.run(vector)
        trial = Trial(number, run.name, vector, origin)
        self._store.put_trial(self._study, trial)
        self._trials.append(trial)
        self._runs[run.name] = run
        return run

    def _vector(self, number: int) -> tuple[Vector, str]:
        transfer = self._spec.transfer
        if number == 0 and transfer is not None:
            return self._space.project(transfer.vector), "transferred"
        so_far = self._quest.trials(self._store, self._store.results())
        pending = [trial.vector for trial in so_far if trial.status == "open"]
        ended = [trial for trial in so_far if trial.status != "open"]
        told = list(zip([trial.vector for trial in ended], self._scores(ended, number), strict=True))
        sampler = self._spec.sampler
        found = suggest(sampler.name, self._space, number, self._spec.seed, told, pending, **sampler.options)
        return found.vector, found.origin

    def _scores(self, ended: list[Tried], number: int) -> list[float]:
        """What the sampler is told for this suggestion."""
        if self._spec.objective == "accuracy":
            return [trial.score for trial in ended]
        costs = [(1.0 - trial.score, float(trial.active)) for trial in ended]
        return mixed(costs, share_of(self._spec.seed, number))

    @property
    def spent(self) -> bool:
        over = not self._waiting and len(self._trials) >= self._spec.samples
        return over and (self._dry or not isinstance(self._halving, Promoting))

    def goes_on(self, run: RunSpec, epoch: int, measured: Mapping[str, float]) -> bool:
        assert self._halving is not None
        rung, before = self._halving.rungs.epochs.index(epoch), len(self._halving.record)
        verdict = self._halving.judge(rung, run.name, float(measured[f"{self._spec.score}_accuracy"]))
        for number, decision in enumerate(self._halving.record[before:], before):
            self._enter(number, decision)
        return verdict

    def _enter(self, number: int, decision: Decision) -> None:
        """A decision of the record, into the store."""
        verdict = Verdict(number, decision.rung, decision.run, decision.score, decision.goes_on)
        self._store.put_verdict(self._study, verdict)

    def ended(self, run: RunSpec, result: RunResult) -> None:
        self._out.discard(run.name)
        if result.status == "halted" and not isinstance(self._halving, Promoting):
            self._desk.forget(run)


def _halving(spec: SearchSpec, verdicts: list[Verdict]) -> Halving | None:
    """The rule of a search with what it has decided; None without one."""
    if spec.rungs is None or spec.halving is None:
        return None
    record = [Decision(v.rung, v.run, v.score, v.goes_on) for v in verdicts]
    return halvings[spec.halving.form](spec.rungs, record)
