"""A pool of worker processes that supervises them: a worker that dies costs its run's last seconds, nothing else."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from sparseflow.core import keep_freed_memory
from sparseflow.study.crew import Crew, Gone, InHand, Message, Worker, carry_out
from sparseflow.study.run import DataCache
from sparseflow.study.supply import Event, Supply
from sparseflow.study.surroundings import Surroundings

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Pool:
    """An executor of `jobs` worker processes on this machine.

    A run that raises ends as "failed" with its traceback. Runs whose worker dies are tried again, from their
    checkpoints, up to `crew.ATTEMPTS` times, in the last attempt each by itself. If this process dies, its workers
    exit. On KeyboardInterrupt the runs in flight are asked to stop after their epoch and to leave a checkpoint, workers
    that take longer than `crew.STOP_SECONDS` are ended, and the interrupt goes on.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, supply: Supply, surroundings: Surroundings, handle: Callable[[Event], None]) -> None:
        Crew(supply, surroundings, self.jobs, handle, _Processes(surroundings)).run()


class _Process(Worker):
    """One process and the pipe to it."""

    ready = True

    def __init__(self, context: Any, surroundings: Surroundings) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, surroundings), daemon=True)
        with _threads_in_environment(surroundings.threads), _deaf_to_interrupts():
            self.process.start()
        theirs.close()
        self.task: InHand | None = None

    def begin(self, task: InHand) -> None:
        self._send("run", task.order)

    def answer(self, goes_on: bool) -> None:
        self._send("verdict", goes_on)

    def stop(self) -> None:
        self._send("stop", None)

    def _send(self, kind: str, content: Any) -> None:
        try:
            self.pipe.send((kind, content))
        except OSError:
            raise Gone from None

    def end(self) -> str:
        self.process.join(1)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode
        return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class _Processes:
    """Processes of this machine as workers."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._context, self._surroundings = mp.get_context("spawn"), surroundings

    def hire(self) -> _Process:
        return _Process(self._context, self._surroundings)

    def listen(self, workers: Sequence[_Process], seconds: float) -> Iterator[tuple[_Process, Message | None]]:
        ready = wait([w.pipe for w in workers], timeout=seconds)
        for worker in [w for w in workers if w.pipe in ready]:
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                message = None
            yield worker, message

    def close(self, workers: Sequence[_Process]) -> None:
        for worker in workers:
            if worker.task is not None:
                worker.process.kill()
            worker.pipe.close()
        for worker in workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


@contextmanager
def _threads_in_environment(threads: int) -> Iterator[None]:
    """OpenMP runtimes read their thread number when the process starts, so it is set around the start of a worker."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
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
    """A worker's life: tasks come through the pipe, rows and results go back."""
    _exit_with_parent()
    keep_freed_memory()
    torch.set_num_threads(surroundings.threads)
    cache = DataCache(surroundings)
    while True:
        try:
            kind, order = pipe.recv()
        except (EOFError, OSError):
            return
        if kind != "stop":
            carry_out(order, surroundings, cache, _Line(pipe))


class _Line:
    """What the driver says while a task is in hand: a verdict where it was asked for one, and to stop, at any time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stop = False

    def send(self, message: Message) -> None:
        self._pipe.send(message)

    def should_stop(self) -> bool:
        while not self._stop and self._pipe.poll():
            self._stop = self._pipe.recv()[0] == "stop"
        return self._stop

    def verdict(self) -> bool | None:
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
