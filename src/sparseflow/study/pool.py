"""A pool of worker processes that supervises them: a worker that dies costs its run's last seconds, nothing else."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch

from sparseflow.study.lineage import predecessor
from sparseflow.study.run import DataCache, Row, RunResult, execute_group
from sparseflow.study.spec import RunSpec
from sparseflow.study.surroundings import Surroundings

ATTEMPTS = 3
"""How often a run whose worker dies is tried."""

STOP_SECONDS = 10.0
"""How long an interrupted pool waits for its workers to reach the end of an epoch."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """What the pool reports of a run: "started", "rows" (measured values) or "ended" (with its result)."""

    kind: Literal["started", "rows", "ended"]
    spec: RunSpec
    payload: Any = None


def run_pool(
    tasks: Iterable[RunSpec | Sequence[RunSpec]],
    surroundings: Surroundings,
    jobs: int,
    handle: Callable[[Event], None],
) -> None:
    """Execute runs on `jobs` worker processes and report everything to `handle`, in this process.

    A task is a run, or a group of runs that a worker carries out together (`study.groups`). It waits until no run is
    left to do that one of its own begins with.

    A run that raises ends as "failed" with its traceback. Runs whose worker dies are tried again, from their
    checkpoints, up to `ATTEMPTS` times, in the last attempt each by itself. If this process dies, its workers exit. On
    KeyboardInterrupt the runs in flight are asked to stop after their epoch and to leave a checkpoint, workers that
    take longer than `STOP_SECONDS` are ended, and the interrupt goes on.
    """
    groups = [(task,) if isinstance(task, RunSpec) else tuple(task) for task in tasks]
    pool = _Pool(deque(_Task(group, 1) for group in groups), surroundings, jobs, handle)
    try:
        pool.work()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.close()


@dataclass
class _Task:
    """Runs that a worker has in hand together; those that have ended are taken out."""

    runs: tuple[RunSpec, ...]
    attempt: int


class _Worker:
    """One process, the pipe to it and the task it is on."""

    def __init__(self, context: Any, surroundings: Surroundings) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, surroundings), daemon=True)
        with _threads_in_environment(surroundings.threads), _deaf_to_interrupts():
            self.process.start()
        theirs.close()
        self.task: _Task | None = None


class _Pool:
    def __init__(
        self, tasks: deque[_Task], surroundings: Surroundings, jobs: int, handle: Callable[[Event], None]
    ) -> None:
        self._tasks, self._handle = tasks, handle
        self._surroundings = surroundings
        self._context = mp.get_context("spawn")
        self._jobs = max(1, min(jobs, len(tasks)))
        self._workers: list[_Worker] = []

    def work(self) -> None:
        while self._tasks or any(w.task for w in self._workers):
            while self._tasks and len(self._workers) < self._jobs:
                self._workers.append(_Worker(self._context, self._surroundings))
            for worker in self._workers:
                if worker.task is None and (task := self._next()) is not None:
                    self._assign(worker, task)
            self._listen(0.5)

    def _next(self) -> _Task | None:
        """The first task that waits for no other, taken out; None where all of them wait for one in hand."""
        in_hand = [worker.task for worker in self._workers if worker.task is not None]
        ahead = {run.name: task for task in [*in_hand, *self._tasks] for run in task.runs}
        for task in self._tasks:
            if all(ahead.get(before.name, task) is task for before in map(predecessor, task.runs) if before):
                self._tasks.remove(task)
                return task
        return None

    def _assign(self, worker: _Worker, task: _Task) -> None:
        worker.task = task
        try:
            worker.pipe.send(("run", [spec.changes() for spec in worker.task.runs]))
        except OSError:
            self._bury(worker)
            return
        for spec in worker.task.runs:
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
            else:
                worker.task.runs = tuple(run for run in worker.task.runs if run is not spec)
                self._handle(Event("ended", spec, RunResult(**content)))

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
            self._tasks.extendleft(_Task(group, again) for group in reversed(groups))
            return
        code = worker.process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        error = f"its worker process died {ATTEMPTS} times ({how}); the machine may be short of memory"
        for spec in task.runs:
            self._handle(Event("ended", spec, RunResult("failed", error=error)))

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
            kind, changes = pipe.recv()
        except (EOFError, OSError):
            return
        if kind == "stop":
            continue
        specs = [RunSpec.model_validate(some) for some in changes]

        def emit(spec: RunSpec, rows: list[Row]) -> None:
            pipe.send(("rows", (spec.name, rows)))

        def should_stop() -> bool:
            return pipe.poll() and pipe.recv()[0] == "stop"

        for spec, result in execute_group(specs, surroundings, cache, emit, should_stop):
            pipe.send(("ended", (spec.name, result.as_dict())))
        pipe.send(("done", None))


def _exit_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
