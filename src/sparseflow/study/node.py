"""A worker's half on a cluster: carries out a task in a thread of its own and says what came of it when asked."""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparseflow.core import keep_freed_memory
from sparseflow.study.crew import Message, Order, carry_out
from sparseflow.study.freight import Consignment, DataKey, Parcel, ShippedCache, pack, scratch, unpack
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE
from sparseflow.study.surroundings import Surroundings

LOOK_SECONDS = 0.5
"""Between looks for a new checkpoint, where one is due."""


class Node:
    """What a cluster runs of a worker; its methods may be called while others are at work.

    To the messages of `crew` it adds ("files", a `Parcel`), always before the "ended" of their run, and
    ("broke", why), after which it is of no more use.

    Args:
        surroundings: the driver's; of its folders none is used.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        keep_freed_memory()
        torch.set_num_threads(surroundings.threads)
        self._surroundings = surroundings
        self._cache = ShippedCache(surroundings)
        self._said = threading.Condition()
        self._outbox: deque[Message] = deque()
        self._verdicts: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._here: Surroundings | None = None
        self._runs: dict[str, RunSpec] = {}
        self._sent: dict[str, int] = {}

    def here(self) -> dict[str, str]:
        """Which machine and which package this is."""
        from importlib.metadata import version

        return {"machine": os.uname().nodename, "sparseflow": version("sparseflow")}

    def begin(
        self,
        order: Order,
        parcel: Parcel,
        named: Parcel,
        data: dict[DataKey, Callable[[], Consignment]],
    ) -> None:
        """Begin a task; the one before must be done.

        Args:
            parcel: checkpoints, and what other runs have left.
            named: files that specifications name.
            data: fetch what the runs train on.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread = threading.Thread(target=self._work, args=(order, parcel, named, data), daemon=True)
        self._thread.start()

    def drain(self, seconds: float, files_in: float) -> list[Message]:
        """What there is to say, waited for at most so long.

        Args:
            files_in: seconds from now after which checkpoints are to be sent too, where there are new ones.
        """
        began = time.monotonic()
        with self._said:
            while True:
                passed = time.monotonic() - began
                parcel = self._checkpoints() if passed >= files_in else {}
                if parcel or self._outbox or passed >= seconds:
                    messages = [*self._outbox, *([("files", parcel)] if parcel else [])]
                    self._outbox.clear()
                    return messages
                self._said.wait(min(seconds - passed, LOOK_SECONDS))

    def answer(self, goes_on: bool) -> None:
        """The verdict on the rung that was sent."""
        self._verdicts.put(goes_on)

    def stop(self) -> None:
        """Leave a checkpoint at the end of the epoch."""
        self._stopping.set()
        self._verdicts.put(None)

    def send(self, message: Message) -> None:
        with self._said:
            if message[0] == "ended":
                name, result = message[1]
                self._outbox.append(("files", self._left_by(name, done=result["status"] in DONE)))
            self._outbox.append(message)
            self._said.notify_all()

    def should_stop(self) -> bool:
        return self._stopping.is_set()

    def verdict(self) -> bool | None:
        return self._verdicts.get()

    def _work(self, order: Order, parcel: Parcel, named: Parcel, data: dict[DataKey, Callable[[], Any]]) -> None:
        try:
            with ExitStack() as stack:
                here = self._surroundings
                if here.checkpoints is not None or named:
                    folder = stack.enter_context(scratch())
                    files = {name: folder / f"named-{k}" for k, name in enumerate(named)}
                    unpack({path.name: named[name] for name, path in files.items()}, folder)
                    checkpoints = None if here.checkpoints is None else folder / "checkpoints"
                    if checkpoints is not None:
                        unpack(parcel, checkpoints)
                    here = replace(here, checkpoints=checkpoints, files=files)
                for key, fetch in data.items():
                    self._cache.receive(key, fetch())
                runs = {run.name: run for run in (RunSpec.model_validate(some) for some in order[0])}
                with self._said:
                    self._here, self._runs = here, runs
                    self._sent = {path.name: path.stat().st_mtime_ns for path in self._passing() if path.is_file()}
                carry_out(order, here, self._cache, self)
                with self._said:
                    self._here = None
        except BaseException:
            self.send(("broke", traceback.format_exc()))

    def _passing(self) -> list[Path]:
        assert self._here is not None
        return [path for name in self._runs for path in self._here.passing_paths(name)]

    def _checkpoints(self) -> Parcel:
        """Those that were written since they were last sent."""
        if self._here is None:
            return {}
        new = []
        for path in self._passing():
            with suppress(FileNotFoundError):
                at = path.stat().st_mtime_ns
                if self._sent.get(path.name) != at:
                    self._sent[path.name] = at
                    new.append(path)
        return pack(new)

    def _left_by(self, name: str, *, done: bool) -> Parcel:
        """All that a run leaves now that it has ended: what is to be kept, or what it goes on from later."""
        assert self._here is not None
        run = self._runs.pop(name)
        if self._here.checkpoints is None:
            return {}
        passing = self._here.passing_paths(name)
        if done:
            for path in passing:
                path.unlink(missing_ok=True)
        kept = self._here.kept_paths(run)
        damaged = [path.with_suffix(".bad") for path in passing]
        return pack([*kept, *damaged, *passing])
