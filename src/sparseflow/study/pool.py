"""A pool of worker processes that supervises them: a worker that dies costs its run's last seconds, nothing else."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from sparseflow.study.lineage import predecessor
from sparseflow.study.run import DataCache, Row, Rungs, RunResult, execute_group
from sparseflow.study.spec import RunSpec
from sparseflow.study.supply import Event, Supply
from sparseflow.study.surroundings import Surroundings

ATTEMPTS = 3
"""How often a run whose worker dies is tried."""

STOP_SECONDS = 10.0
"""How long an interrupted pool waits for its workers to reach the end of an epoch."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Pool:
    """An executor of `jobs` worker processes on this machine.

    A run that raises ends as "failed" with its traceback. Runs whose worker dies are tried again, from their
    checkpoints, up to `ATTEMPTS` times, in the last attempt each by itself. If this process dies, its workers exit. On
    KeyboardInterrupt the runs in flight are asked to stop after their epoch and to leave a checkpoint, workers that
    take longer than `STOP_SECONDS` are ended, and the interrupt goes on.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, supply: Supply, surroundings: Surroundings, handle: Callable[[Event], None]) -> None:
        crew = _Crew(supply, surroundings, self.jobs, handle)
        try:
            crew.work()
        except BaseException:
            crew.stop()
            raise
        finally:
            crew.close()


@dataclass
class _InHand:
    """A task that was taken; the runs of it that have ended are taken out."""

    runs: tuple[RunSpec, ...]
    rungs: tuple[int, ...]
    attempt: int = 1


class _Worker:
    """One process, the pipe to it and the task it is on."""

    def __init__(self, context: Any, surroundings: Surroundings) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, surroundings), daemon=True)
        with _threads_in_environment(surroundings.threads), _deaf_to_interrupts():
            self.process.start()
        theirs.close()
        self.task: _InHand | None = None


class _Crew:
    """The workers of one supply."""

    def __init__(self, supply: Supply, surroundings: Surroundings, jobs: int, handle: Callable[[Event], None]) -> None:
        self._supply, self._surroundings, self._jobs, self._handle = supply, surroundings, jobs, handle
        self._again: deque[_InHand] = deque()
        """Tasks whose worker died."""
        self._context = mp.get_context("spawn")
        self._workers: list[_Worker] = []

    def work(self) -> None:
        while self._again or not self._supply.spent or any(w.task for w in self._workers):
            self._hand_out()
            self._listen(0.5)

    def _hand_out(self) -> None:
        """Give every worker that is free a task, and take workers on while there are more tasks."""
        while (idle := self._idle()) or len(self._workers) < self._jobs:
            task = self._next()
            if task is None:
                return
            self._assign(idle or self._hire(), task)

    def _idle(self) -> _Worker | None:
        return next((worker for worker in self._workers if worker.task is None), None)

    def _hire(self) -> _Worker:
        self._workers.append(_Worker(self._context, self._surroundings))
        return self._workers[-1]

    def _next(self) -> _InHand | None:
        if self._again:
            return self._again.popleft()
        taken = [worker.task for worker in self._workers if worker.task is not None]
        task = self._supply.take({run.name for some in [*taken, *self._again] for run in some.runs})
        return None if task is None else _InHand(task.runs, task.rungs)

    def _assign(self, worker: _Worker, task: _InHand) -> None:
        worker.task = task
        try:
            worker.pipe.send(("run", ([spec.changes() for spec in task.runs], task.rungs)))
        except OSError:
            self._bury(worker)
            return
        for spec in task.runs:
            self._handle(Event("started", spec))

    def _listen(self, seconds: float) -> None:
        ready = wait([w.pipe for w in self._workers], timeout=seconds)
        for worker in [w for w in self._workers if w.pipe in ready]:
            try:
                kind, payload = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            assert worker.task is not None
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
                result = RunResult(**content)
                self._handle(Event("ended", spec, result))
                self._supply.ended(spec, result)

    def _answer(self, worker: _Worker, goes_on: bool) -> None:
        with suppress(OSError):  # a worker that has died meanwhile is noticed where its pipe is read
            worker.pipe.send(("verdict", goes_on))

    def _bury(self, worker: _Worker) -> None:
        """Take a dead worker out and put its runs back, or give them up after their last attempt."""
        worker.process.join(1)
        worker.process.kill()  # one whose pipe broke but which lives must not train beside its own retry
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        task = worker.task
        if task is None or not task.runs:
            return
        if task.attempt < ATTEMPTS:
            again = task.attempt + 1
            # One run of a group may be what kills the worker: in the end each has its own, where order allows it.
            alone = again == ATTEMPTS and not any(predecessor(run) for run in task.runs)
            groups = [(run,) for run in task.runs] if alone else [task.runs]
            self._again.extendleft(_InHand(group, task.rungs, again) for group in reversed(groups))
            return
        code = worker.process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        error = f"its worker process died {ATTEMPTS} times ({how}); the machine may be short of memory"
        for spec in task.runs:
            result = RunResult("failed", error=error)
            self._handle(Event("ended", spec, result))
            self._supply.ended(spec, result)

    def stop(self) -> None:
        """Ask for the end of the epoch, wait a little, then end the rest."""
        for worker in self._workers:
            try:
                worker.pipe.send(("stop", None))
            except OSError:
                continue
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while any(w.task for w in self._workers) and time.monotonic() < deadline:
                self._listen(0.2)
        except BaseException:  # a second interrupt: no more waiting
            pass
        for worker in self._workers:
            if worker.task is not None:
                worker.process.kill()

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


@contextmanager
def _threads_in_environment(threads: int) -> Iterator[None]:
    """OpenMP runtimes read their thread number when the process starts, so it is set around the start of a worker."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole process group, but the driver alone says what is to happen.

    A process keeps ignoring a signal that was ignored when it started, so a worker is deaf from its first instruction.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals cannot be set here, and an interrupt goes to the main thread
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, surroundings: Surroundings) -> None:
    """A worker's life: runs come through the pipe, rows and results go back."""
    _exit_with_parent()
    torch.set_num_threads(surroundings.threads)
    cache = DataCache(surroundings)
    while True:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            return
        if kind == "stop":
            continue
        changes, rungs = content
        specs = [RunSpec.model_validate(some) for some in changes]
        answers = _Answers(pipe)

        def emit(spec: RunSpec, rows: list[Row]) -> None:
            pipe.send(("rows", (spec.name, rows)))

        rungs = Rungs(rungs, answers.goes_on)
        for spec, result in execute_group(specs, surroundings, cache, emit, answers.should_stop, rungs):
            pipe.send(("ended", (spec.name, result.as_dict())))
        pipe.send(("done", None))


class _Answers:
    """What the driver says while a task is in hand: a verdict where it was asked for one, and to stop, at any time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stop = False

    def should_stop(self) -> bool:
        while not self._stop and self._pipe.poll():
            self._stop = self._pipe.recv()[0] == "stop"
        return self._stop

    def goes_on(self, spec: RunSpec, epoch: int, measured: Mapping[str, float]) -> bool | None:
        """The driver's verdict; None where it stops everything instead."""
        self._pipe.send(("rung", (spec.name, (epoch, dict(measured)))))
        while not self._stop:
            kind, verdict = self._pipe.recv()
            if kind == "verdict":
                return bool(verdict)
            self._stop = kind == "stop"
        return None


def _exit_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
