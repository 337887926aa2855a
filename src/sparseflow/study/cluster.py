"""Workers on a Ray cluster: any study or search, with no folder in common; results and files come to the driver."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from sparseflow.core import BadValue, SparseflowError, check_positive, cores
from sparseflow.study.crew import ATTEMPTS, Crew, InHand, Message, Worker
from sparseflow.study.freight import DataKey, Unreadable, consignment, named_files, needed, pack, unpack
from sparseflow.study.node import Node
from sparseflow.study.pool import THREAD_VARIABLES
from sparseflow.study.run import DataCache
from sparseflow.study.spec import RunSpec
from sparseflow.study.supply import Event, Supply
from sparseflow.study.surroundings import Surroundings

FETCH_TRIES, FETCH_SECONDS = 10, 60.0

PATIENCE_SECONDS = 30.0
"""After which it is said that workers have not come."""

WRITING_SHARE = 0.05
"""Of the driver's time, that it may spend on writing checkpoints that workers send."""

_DRAIN_SECONDS = 20.0


def _nothing(text: str) -> None:
    """A note that nobody reads."""


class Cluster:
    """An executor of workers on a Ray cluster; a context manager that leaves the cluster (or ends a local one).

    A worker is a Ray actor of as many CPUs as a run has threads, and of a part of a GPU where that is asked for. Data
    sets are read here and sent once to each node; those that are streamed from files must be on every node. A run works
    in a folder of its own on its node, and its checkpoints come here as they are due. Runs whose worker or node dies
    are tried again from the last that came, up to `crew.ATTEMPTS` times; all else is as in a `Pool`.

    Args:
        address: of a running cluster, "auto" for the one that this machine belongs to, "local" to start one here; a
            process that has joined a cluster already (`ray.init`) stays in that one.
        jobs: workers at most; by default as many as the cluster has room for now.
        gpus: part of a GPU that a worker gets, at most 1; 0 for none.
        note: told, as a sentence, what a person should know, such as that workers wait for room.

    Raises:
        BadValue: if Ray is missing, there is no such cluster, or it has no room.
    """

    def __init__(
        self,
        address: str = "auto",
        jobs: int | None = None,
        *,
        gpus: float = 0.0,
        note: Callable[[str], None] = _nothing,
    ) -> None:
        if not 0.0 <= gpus <= 1.0:
            raise BadValue(f"gpus must be in [0, 1], the part of a GPU that a run gets, got {gpus:g}")
        self._ray = _ray()
        self._gpus, self._note = gpus, note
        self._shipped: dict[tuple[str | None, DataKey], Any] = {}
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, address, jobs)
        try:
            self.jobs = check_positive("jobs", jobs) if jobs is not None else self._room(address)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that was joined before by others is not left."""
        self._shipped.clear()
        if self._own:
            self._ray.shutdown()

    def run(self, supply: Supply, surroundings: Surroundings, handle: Callable[[Event], None]) -> None:
        actors = _Actors(self._ray, surroundings, self._gpus, self._shipped, self._note)
        Crew(supply, surroundings, self.jobs, handle, actors).run()

    def _room(self, address: str) -> int:
        """Workers that the cluster has room for, were it empty."""
        there = self._ray.cluster_resources()
        cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
        room = int(min(cpus, gpus / self._gpus if self._gpus else cpus))
        if room < 1:
            raise BadValue(
                f"the Ray cluster {address!r} has {cpus:g} CPUs and {gpus:g} GPUs, and a worker takes "
                f"{_share(1, self._gpus)}; add nodes, or give --jobs where nodes come on demand"
            )
        return room


def _share(cpus: int, gpus: float) -> str:
    return f"{cpus} CPU{'s' if cpus > 1 else ''}" + (f" and {gpus:g} GPU" if gpus else "")


def _ray() -> Any:
    # Nothing of a study is reported to others unless the user asks for it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What Ray will do by default: leave the GPUs of a worker that asks for none alone.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise BadValue('running on a cluster needs Ray: pip install "sparseflow[ray]"') from None
    return ray


def _connect(ray: Any, address: str, jobs: int | None) -> None:
    words: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        words |= {"num_cpus": jobs or cores(), "include_dashboard": False}
    try:
        with _own_sigterm():
            ray.init(**words)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
        why = " ".join(str(error).split())
        raise BadValue(
            f"cannot join a Ray cluster at {address!r} ({why}); start one with `ray start --head`, or take `local`"
        ) from None


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts in a handler of its own that ends the process; an interrupted study is to leave its checkpoints."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _import_paths() -> list[str]:
    """Folders that this process imports from beside those of its Python, such as the current one."""
    python = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    found = [Path(entry or os.curdir).resolve() for entry in sys.path]
    installed = ("site-packages", "dist-packages", "lib-dynload")
    return [
        str(path)
        for path in dict.fromkeys(found)
        if path.is_dir() and path not in python and path.name not in installed
    ]


class _Actor(Worker):
    """One Ray actor, what it was last asked, and what it has said."""

    def __init__(self, ray: Any, actor: Any, surroundings: Surroundings, load: Callable[[list[RunSpec]], Any]) -> None:
        self._ray, self._actor, self._surroundings, self._load = ray, actor, surroundings, load
        self.task: InHand | None = None
        self.ready = False
        self.hired = time.monotonic()
        self.files_due = 0.0
        self.inbox: deque[Message] = deque()
        self.asked = actor.here.remote()
        self.begun: Any = None
        self.cause = ""

    def begin(self, task: InHand) -> None:
        where, runs = self._surroundings, list(task.runs)
        parcel, named = pack(needed(runs, where)), named_files(runs, where)
        self.begun = self._actor.begin.remote(task.order, parcel, named, self._load(runs))

    def answer(self, goes_on: bool) -> None:
        self._actor.answer.remote(goes_on)

    def stop(self) -> None:
        self._actor.stop.remote()

    def ask(self) -> None:
        """Ask what there is to say."""
        self.asked = self._actor.drain.remote(_DRAIN_SECONDS, max(0.0, self.files_due - time.monotonic()))

    def end(self) -> str:
        with suppress(Exception):  # it may have ended, or the cluster with it
            self._ray.kill(self._actor, no_restart=True)
        return self.cause


class _Actors:
    """Actors of a Ray cluster as workers."""

    def __init__(
        self,
        ray: Any,
        surroundings: Surroundings,
        gpus: float,
        shipped: dict[tuple[str | None, DataKey], Any],
        note: Callable[[str], None],
    ) -> None:
        self._ray, self._surroundings, self._gpus = ray, surroundings, gpus
        self._shipped, self._note = shipped, note
        self._cache = DataCache(replace(surroundings, device="cpu"))
        self._failed_starts = 0
        self._noted = 0.0
        self._writing = 0.0
        threads = surroundings.threads
        names = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONPATH": os.pathsep.join(_import_paths())}
        self._make = ray.remote(Node).options(
            num_cpus=threads,
            num_gpus=gpus,
            max_concurrency=4,  # it is heard, answered and stopped while it is asked
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": names},
        )

    def hire(self) -> _Actor:
        return _Actor(self._ray, self._make.remote(self._surroundings), self._surroundings, self._data_of)

    def _data_of(self, runs: list[RunSpec]) -> dict[DataKey, Callable[[], Any]]:
        """What the runs train on, read and put into the cluster's memory where that has not been done."""
        found: dict[DataKey, Callable[[], Any]] = {}
        for run in runs:
            key = (run.data.name, run.data.image_size)
            place = (self._surroundings.data_root, key)
            if place not in self._shipped:
                what = consignment(run.data, self._cache)
                if isinstance(what, Unreadable):  # the next run may find it mended
                    found[key] = partial(_same, what)
                    continue
                self._shipped[place] = self._ray.put(what)
            found[key] = partial(_fetch, [self._shipped[place]])
        self._cache = DataCache(replace(self._surroundings, device="cpu"))  # in the cluster's memory, not twice
        return found

    def listen(self, workers: Sequence[_Actor], seconds: float) -> Iterator[tuple[_Actor, Message | None]]:
        self._say_who_is_missing(workers)
        self._collect(workers, 0.0 if any(w.inbox for w in workers) else seconds)
        for worker in list(workers):
            while worker.inbox:
                kind, content = worker.inbox.popleft()
                if kind == "files":
                    self._write(worker, content, len(workers))
                elif kind == "broke":
                    worker.cause = str(content)
                    yield worker, None
                    break
                else:
                    yield worker, (kind, content)
            else:
                if worker.cause:
                    yield worker, None

    def _collect(self, workers: Sequence[_Actor], seconds: float) -> None:
        """Put what has come into the inboxes, and ask for more."""
        open_ = {ref: w for w in workers for ref in (w.asked, w.begun) if ref is not None}
        if not open_:
            time.sleep(seconds)
            return
        self._ray.wait(list(open_), num_returns=1, timeout=seconds)
        came, _ = self._ray.wait(list(open_), num_returns=len(open_), timeout=0)
        for ref in came:
            worker = open_[ref]
            try:
                said = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                worker.cause = worker.cause or _cause(error)
                if not worker.ready:
                    self._start_failed(worker, workers)
                continue
            if ref == worker.begun:
                worker.begun = None
            elif worker.ready:
                worker.ask()
                worker.inbox.extend(said)
            else:
                self._welcome(worker, said, workers)

    def _welcome(self, worker: _Actor, said: dict[str, str], workers: Sequence[_Actor]) -> None:
        ours = version("sparseflow")
        if said["sparseflow"] != ours:
            worker.cause = f"{said['machine']} has sparseflow {said['sparseflow']}, and the driver {ours}"
            self._start_failed(worker, workers)
            return
        self._failed_starts = 0
        worker.ready = True
        worker.ask()

    def _start_failed(self, worker: _Actor, workers: Sequence[_Actor]) -> None:
        self._failed_starts += 1
        self._note(f"a worker did not start: {worker.cause}")
        if self._failed_starts >= ATTEMPTS and not any(w.ready for w in workers):
            raise SparseflowError(
                f"no worker starts on the Ray cluster ({worker.cause}); every node needs the same sparseflow and Python"
            )

    def _write(self, worker: _Actor, parcel: dict[str, bytes], workers: int) -> None:
        """Keep a worker's files; the next are due when all workers' together take a small part of the time."""
        if not parcel or self._surroundings.checkpoints is None:
            return
        began = time.monotonic()
        unpack(parcel, self._surroundings.checkpoints)
        now = time.monotonic()
        pause = max(self._surroundings.checkpoint_seconds, (now - began) * workers / WRITING_SHARE)
        worker.files_due = now + pause

    def _say_who_is_missing(self, workers: Sequence[_Actor]) -> None:
        now = time.monotonic()
        missing = [w for w in workers if not w.ready and now - w.hired > PATIENCE_SECONDS]
        there = sum(w.ready for w in workers)
        # Once where others are at work; again and again where nothing goes on at all.
        if not missing or (self._noted and (there or now - self._noted < 3 * PATIENCE_SECONDS)):
            return
        self._noted = now
        free = self._ray.available_resources()
        self._note(
            f"{len(missing)} of {len(workers)} workers have not started yet"
            + (f", {there} are at work" if there else ", nothing runs until one has")
            + f": each takes {_share(self._surroundings.threads, self._gpus)}, and the cluster has "
            f"{free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs free"
        )

    def close(self, workers: Sequence[_Actor]) -> None:
        for worker in workers:
            worker.end()


def _fetch(reference: list[Any]) -> Any:
    """On a worker: what was put into the cluster's memory, mapped from its node's.

    A request that the cluster loses, as was seen once after a worker had been killed, would be waited for without end:
    it is made again, and given up after ten minutes.
    """
    import ray

    for _ in range(FETCH_TRIES - 1):
        try:
            return ray.get(reference[0], timeout=FETCH_SECONDS)
        except ray.exceptions.GetTimeoutError:
            continue
    return ray.get(reference[0], timeout=FETCH_SECONDS)


def _same(what: Any) -> Any:
    return what


def _cause(error: Exception) -> str:
    """What Ray says of a death, without its table of numbers, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]
    return " ".join(line for line in lines if line) or type(error).__name__
