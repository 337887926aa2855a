"""Workers and the tasks they are on: handed out, heard of, tried again where a worker dies; and a worker's own half.

What a worker is (a process here, an actor on a cluster) is its `Staff`'s business.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sparseflow.study.lineage import predecessor
from sparseflow.study.run import DataCache, Row, Rungs, RunResult, execute_group
from sparseflow.study.spec import RunSpec
from sparseflow.study.supply import Event, Supply
from sparseflow.study.surroundings import Surroundings

ATTEMPTS = 3
"""How often a run whose worker dies is tried."""

STOP_SECONDS = 10.0
"""How long an interrupted executor waits for its workers to reach the end of an epoch."""

Order = tuple[list[dict[str, Any]], tuple[int, ...]]
"""What a worker is told to do: the runs' `changes` and the task's rungs."""

Message = tuple[str, Any]
"""("rows" or "rung" or "ended", (run's name, content)) or ("done", None)."""


@dataclass
class InHand:
    """A task that was taken; the runs of it that have ended are taken out."""

    runs: tuple[RunSpec, ...]
    rungs: tuple[int, ...]
    attempt: int = 1

    @property
    def order(self) -> Order:
        return [spec.changes() for spec in self.runs], self.rungs


class Gone(Exception):
    """The worker that something was sent to has died."""


class Worker(Protocol):
    """One that carries out a task at a time; what is sent to one that has died raises `Gone`.

    Attributes:
        ready: whether it is there to be given a task; False while it is still to come.
    """

    task: InHand | None
    ready: bool

    def begin(self, task: InHand) -> None: ...

    def answer(self, goes_on: bool) -> None: ...

    def stop(self) -> None:
        """Ask it to leave a checkpoint at the end of its epoch."""
        ...

    def end(self) -> str:
        """End it whatever it does, where it has not ended; says how it died."""
        ...


W = TypeVar("W", bound=Worker)


class Staff(Protocol[W]):
    """Where workers come from, and how they are heard."""

    def hire(self) -> W: ...

    def listen(self, workers: Sequence[W], seconds: float) -> Iterator[tuple[W, Message | None]]:
        """What has come from workers, waited for at most so long; None from one that has died."""
        ...

    def close(self, workers: Sequence[W]) -> None:
        """End them all, busy or not."""
        ...


class Crew:
    """The workers of one supply."""

    def __init__(
        self, supply: Supply, surroundings: Surroundings, jobs: int, handle: Callable[[Event], None], staff: Staff[Any]
    ) -> None:
        self._supply, self._surroundings, self._jobs, self._handle = supply, surroundings, jobs, handle
        self._staff = staff
        self._waiting: deque[InHand] = deque()
        """Tasks whose worker died, or is still to come."""
        self._workers: list[Any] = []

    def run(self) -> None:
        """Carry out all that the supply gives; after an interrupt or an error the tasks in hand are stopped."""
        try:
            while self._waiting or not self._supply.spent or any(w.task for w in self._workers):
                self._hand_out()
                self._listen(0.5)
        except BaseException:
            self._stop()
            raise
        finally:
            self._staff.close(self._workers)

    def _hand_out(self) -> None:
        """Give every worker that is free a task, and take workers on while there are more tasks."""
        while True:
            free = next((worker for worker in self._workers if worker.ready and worker.task is None), None)
            coming = sum(not worker.ready for worker in self._workers)
            if free is None and len(self._workers) >= self._jobs:
                return
            # A task is nobody's until its worker is there: whoever is free first has it.
            if len(self._waiting) <= (0 if free else coming):
                task = self._take()
                if task is None:
                    return
                self._waiting.append(task)
            if free is not None:
                self._assign(free, self._waiting.popleft())
            else:
                self._workers.append(self._staff.hire())

    def _take(self) -> InHand | None:
        taken = [worker.task for worker in self._workers if worker.task is not None]
        task = self._supply.take({run.name for some in [*taken, *self._waiting] for run in some.runs})
        return None if task is None else InHand(task.runs, task.rungs)

    def _assign(self, worker: Worker, task: InHand) -> None:
        worker.task = task
        try:
            worker.begin(task)
        except Gone:
            self._bury(worker)
            return
        for spec in task.runs:
            self._handle(Event("started", spec))

    def _listen(self, seconds: float) -> None:
        for worker, message in self._staff.listen(self._workers, seconds):
            if message is None:
                self._bury(worker)
                continue
            assert worker.task is not None
            kind, payload = message
            if kind == "done":
                worker.task = None
                continue
            name, content = payload
            spec = next(run for run in worker.task.runs if run.name == name)
            if kind == "rows":
                self._handle(Event("rows", spec, content))
            elif kind == "rung":
                self._answer(worker, self._supply.goes_on(spec, *content))
            else:
                worker.task.runs = tuple(run for run in worker.task.runs if run is not spec)
                self._ended(spec, RunResult(**content))

    def _ended(self, spec: RunSpec, result: RunResult) -> None:
        self._handle(Event("ended", spec, result))
        self._supply.ended(spec, result)

    def _answer(self, worker: Worker, goes_on: bool) -> None:
        with suppress(Gone):  # which is noticed where it is listened to
            worker.answer(goes_on)

    def _bury(self, worker: Worker) -> None:
        """Take a dead worker out and put its runs back, or give them up after their last attempt."""
        how = worker.end()  # one that cannot be heard but lives must not train beside its own retry
        self._workers.remove(worker)
        task = worker.task
        if task is None or not task.runs:
            return
        if task.attempt < ATTEMPTS:
            again = task.attempt + 1
            # One run of a group may be what kills the worker: in the end each has its own, where order allows it.
            alone = again == ATTEMPTS and not any(predecessor(run) for run in task.runs)
            groups = [(run,) for run in task.runs] if alone else [task.runs]
            self._waiting.extendleft(InHand(group, task.rungs, again) for group in reversed(groups))
            return
        error = f"its worker process died {ATTEMPTS} times ({how}); the machine may be short of memory"
        for spec in task.runs:
            self._ended(spec, RunResult("failed", error=error))

    def _stop(self) -> None:
        """Ask for the end of the epoch, then wait a little."""
        for worker in self._workers:
            if worker.task is not None:
                with suppress(Gone):
                    worker.stop()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while any(w.task for w in self._workers) and time.monotonic() < deadline:
                self._listen(0.2)
        except BaseException:  # a second interrupt: no more waiting
            pass


class Line(Protocol):
    """A worker's line to its driver."""

    def send(self, message: Message) -> None: ...

    def should_stop(self) -> bool: ...

    def verdict(self) -> bool | None:
        """Of the rung that was just sent, waited for; None where everything is stopped instead."""
        ...


def carry_out(order: Order, surroundings: Surroundings, cache: DataCache, line: Line) -> None:
    """A worker's half of a task."""
    changes, epochs = order
    specs = [RunSpec.model_validate(some) for some in changes]

    def emit(spec: RunSpec, rows: list[Row]) -> None:
        line.send(("rows", (spec.name, rows)))

    def goes_on(spec: RunSpec, epoch: int, measured: Mapping[str, float]) -> bool | None:
        line.send(("rung", (spec.name, (epoch, dict(measured)))))
        return line.verdict()

    rungs = Rungs(epochs, goes_on)
    for spec, result in execute_group(specs, surroundings, cache, emit, line.should_stop, rungs):
        line.send(("ended", (spec.name, result.as_dict())))
    line.send(("done", None))
