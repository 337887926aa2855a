"""A watcher of studies that draws nothing, and an executor in the test's own process."""

from __future__ import annotations

from sparseflow.study import DataCache, Event, Rungs, execute_group


class Quiet:
    """Keeps what it was told at the beginning."""

    def begin(self, total, done):
        self.total, self.done = total, done

    def grows(self, total):
        self.total = total

    def event(self, event):
        pass


class InProcess:
    """One task after the other; `spoil` may change an event before anybody hears of it."""

    jobs = 1

    def __init__(self, spoil=lambda event: event):
        self._spoil = spoil

    def run(self, supply, surroundings, handle):
        cache = DataCache(surroundings)
        while (task := supply.take(set())) is not None:
            for run in task.runs:
                handle(Event("started", run))

            def emit(run, rows):
                handle(Event("rows", run, rows))

            rungs = Rungs(task.rungs, supply.goes_on)
            for run, result in execute_group(task.runs, surroundings, cache, emit, rungs=rungs):
                event = self._spoil(Event("ended", run, result))
                handle(event)
                supply.ended(run, event.payload)
