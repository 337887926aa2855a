"""What a person sees while images are decoded and while a study runs: a bar with an ETA, the best cells so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparseflow.study import Event, RunSpec

LINE_SECONDS = 30.0
"""Without a terminal, a line is printed this often."""


class Reading:
    """A `data.Watch` that draws a bar with an ETA on a terminal, or prints a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("images", total=None)
        self._what = ""

    def __enter__(self) -> Reading:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        if what != self._what:
            self._console.print(what)
            self._what, self._first = what, done
            self._began = self._last_line = time.monotonic()
            self._bar.reset(self._task)
        self._bar.update(self._task, total=of or None, completed=done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > LINE_SECONDS and done > self._first:
            self._last_line = now
            left = (now - self._began) / (done - self._first) * (of - done)
            self._console.print(f"{done:,} of {of:,}, about {duration(left)} left", highlight=False)


class Show:
    """A `Watcher` that draws a bar on a terminal, or prints a line now and then elsewhere.

    Args:
        place: what a person knows a run by, if by anything; runs of one place are averaged.
        split: whose accuracy tells the best place.
    """

    def __init__(self, console: Console, place: Callable[[RunSpec], str | None], split: str = "test") -> None:
        self._console, self._place, self._score = console, place, f"{split}_accuracy"
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[best]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("runs", total=None, best="")
        self._scores: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._total = self._known = 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Show:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, total: int, done: int) -> None:
        self._total, self._known = total, done
        self._began = time.monotonic()
        self._bar.reset(self._task, total=total, completed=done)
        if done:
            self._console.print(f"{done} of {total} runs are there already")

    def grows(self, total: int) -> None:
        self._total = total
        self._bar.update(self._task, total=total)

    def event(self, event: Event) -> None:
        if event.kind != "ended":
            return
        result = event.payload
        self._counts[result.status] += 1
        place = self._place(event.spec)
        if place and self._score in result.final and result.status == "finished":
            self._scores[place].append(result.final[self._score])
        self._bar.update(self._task, advance=1, best=self._best())
        if not self._console.is_terminal and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(self._line(), highlight=False)

    def _best(self) -> str:
        if not self._scores:
            return ""
        means = {place: sum(values) / len(values) for place, values in self._scores.items()}
        place = max(means, key=means.__getitem__)
        bad = ", ".join(f"{n} {status}" for status, n in self._counts.items() if status not in ("finished", "stopped"))
        return f"best {place} {100 * means[place]:.1f} %" + (f"; {bad}" if bad else "")

    def _line(self) -> str:
        ended = sum(self._counts.values())
        passed = time.monotonic() - self._began
        left = passed / max(1, ended) * (self._total - self._known - ended)
        return f"{self._known + ended} of {self._total} runs, about {duration(left)} left; {self._best()}"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Inside, a function of (done, total) that draws a bar with an ETA, or prints a line now and then elsewhere.

    On standard error, so that standard output holds the result alone.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = last = time.monotonic()
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    task = bar.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        nonlocal last
        bar.update(task, completed=done, total=total)
        now = time.monotonic()
        if not console.is_terminal and now - last > LINE_SECONDS and done < total:
            last = now
            console.print(f"{what}: {done} of {total}, about {duration((now - began) / done * (total - done))} left")

    with bar:
        yield show


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * size or (size == 60 and seconds >= 90):
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
