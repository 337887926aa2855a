"""`sparseflow bench sweep`: a whole study against a plain script that trains the same networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from sparseflow.bench.timing import Row, median_and_spread
from sparseflow.core import BadValue, SparseflowError, UnknownName, check_positive, cores
from sparseflow.data import Prepared
from sparseflow.study import CompareSpec, DataCache, Surroundings, assign, cells, read_preset, runs_of, validate

PLAIN_SCRIPT = Path(__file__).parents[3] / "benchmarks" / "plain_sweep.py"
"""The rival, where this runs from a checkout."""

SAMPLE_SECONDS = 0.1
"""How often memory is looked at while a command runs."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Sweep:
    """What is swept: a preset, what is laid over it, and how long it trains unless told otherwise."""

    sets: tuple[str, ...] = ()
    epochs: int | None = None
    """None: the preset's."""
    points: int | None = None
    """Measuring points of every run; None: the preset's."""


STUDIES: Mapping[str, Sweep] = {
    "digits": Sweep(),
    # One cell. An epoch stands for 500, of which the eleven measuring points are no part worth mention. All examples:
    # of fewer, testing would be most of the work.
    "fashion-mnist": Sweep(("compare.optimizers=[momentum]", "compare.variants=[NR]"), epochs=1, points=0),
}


@dataclass(frozen=True)
class Ran:
    """A command that was run: its wall clock, the peak memory of all its processes together, what it printed."""

    seconds: float
    peak_mib: float
    printed: str


def bench_sweep(
    study: str = "digits",
    *,
    epochs: int | None = None,
    train_limit: int | None = None,
    seeds: int | None = None,
    points: int | None = None,
    data_root: str | None = None,
    jobs: Sequence[int] = (1, 2),
    rounds: int = 1,
    plain: Path | None = None,
    report: Callable[[str], None] = lambda what: None,
    note: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Milliseconds per run and epoch of the plain script (one thread) and of `sparseflow compare` with so many jobs.

    The whole command's wall clock counts for both: starting, reading data, and for `sparseflow` the report. The
    commands take turns, each in a fresh folder.

    Args:
        study: of `STUDIES`.
        epochs, train_limit, seeds, points: laid over the study's own.
        plain: the plain script; by default that of the checkout.
        note: told what starting alone costs either, and of what may spoil the figures.

    Raises:
        UnknownName: for another study.
        BadValue: for numbers out of range, or where there is no plain script.
        SparseflowError: if a command fails, or the two did not train equally much.
    """
    spec = sweep_spec(study, epochs=epochs, train_limit=train_limit, seeds=seeds, points=points)
    check_positive("rounds", rounds)
    for count in jobs:
        check_positive("jobs", count)
    script = _script(plain)
    cache = DataCache(Surroundings(data_root))
    report("reading data")
    data = cache.prepared(spec)
    runs = len(list(runs_of(cells(spec, data))))
    run_epochs = runs * spec.train.epochs
    _warn_of_few_cores(jobs, note)
    case = (
        f"sweep {study}: {runs} runs of {spec.train.epochs} epoch{_s(spec.train.epochs)}, "
        f"{len(data.train):,} training examples, {spec.measure.points} measuring points"
    )
    with tempfile.TemporaryDirectory(prefix="sparseflow-bench-") as name:
        place = Path(name)
        arrays = place / "data.npz"
        write_arrays(arrays, data)
        rival = [sys.executable, str(script), "--study", study, "--data", str(arrays)]
        rival += ["--seeds", str(spec.compare.seeds), "--epochs"]
        ours = _our_command(study, spec, data_root)
        results: dict[str, list[Ran]] = {}
        for turn in range(rounds):
            where = f"round {turn + 1} of {rounds}" if rounds > 1 else case
            report(f"{where}: plain script")
            ran = run_watched([*rival, str(spec.train.epochs)], place, threads=1)
            _check_same(ran.printed, run_epochs)
            results.setdefault("plain script", []).append(ran)
            for count in jobs:
                label = f"sparseflow, {count} job{_s(count)}"
                report(f"{where}: {label}")
                out = ["--jobs", str(count), "--out", str(place / f"out-{turn}-{count}")]
                results.setdefault(label, []).append(run_watched([*ours, *out], place))
        report("start-up")
        idle = run_watched([*rival, "0"], place, threads=1).seconds
        again = run_watched([*ours, *out], place).seconds if jobs else nan
        note(f"starting, reading and building alone take the plain script {idle:.1f} s")
        note(f"the same command on a finished folder (starting, reading, report) takes sparseflow {again:.1f} s")
    return [_row(case, label, rans, run_epochs) for label, rans in results.items()]


def sweep_spec(
    study: str,
    *,
    epochs: int | None = None,
    train_limit: int | None = None,
    seeds: int | None = None,
    points: int | None = None,
) -> CompareSpec:
    """The comparison that is swept, as `sparseflow compare` gets it.

    Raises:
        UnknownName: for a study that the plain script does not know.
        BadSpec: for a number out of range.
    """
    if study not in STUDIES:
        raise UnknownName("study", study, STUDIES)
    usual = STUDIES[study]
    wanted = {
        "train.epochs": usual.epochs if epochs is None else epochs,
        "data.train_limit": train_limit,
        "measure.points": usual.points if points is None else points,
        "compare.seeds": seeds,
    }
    changes = [f"{field}={value}" for field, value in wanted.items() if value is not None]
    return validate(CompareSpec, assign(read_preset(study), [*usual.sets, *changes]))


def _our_command(study: str, spec: CompareSpec, data_root: str | None) -> list[str]:
    sets = [
        *STUDIES[study].sets,
        f"train.epochs={spec.train.epochs}",
        f"measure.points={spec.measure.points}",
        f"compare.seeds={spec.compare.seeds}",
    ]
    if spec.data.train_limit is not None:
        sets.append(f"data.train_limit={spec.data.train_limit}")
    command = [sys.executable, "-m", "sparseflow", "compare", study]
    for change in sets:
        command += ["--set", change]
    # An absolute path: the command runs in a folder of its own.
    return command + (["--data-root", str(Path(data_root).expanduser().resolve())] if data_root else [])


def write_arrays(path: Path, data: Prepared) -> None:
    """The splits as the plain script reads them: the very examples that the study trains and tests on."""
    np.savez(
        path,
        x=data.train.x.numpy(),
        y=data.train.y.numpy(),
        x_test=data.test.x.numpy(),
        y_test=data.test.y.numpy(),
    )


def _script(plain: Path | None) -> Path:
    script = PLAIN_SCRIPT if plain is None else plain
    if not script.is_file():
        raise BadValue(f"no plain script at {script}; run from a checkout, or pass --plain benchmarks/plain_sweep.py")
    return script.resolve()


def _warn_of_few_cores(jobs: Sequence[int], note: Callable[[str], None]) -> None:
    available = cores()
    if max(jobs, default=0) > available:
        note(f"{max(jobs)} jobs on {available} core{_s(available)}: they can be no faster than {available}")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _check_same(printed: str, run_epochs: int) -> None:
    try:
        said: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        done = said["run_epochs"]
    except (ValueError, IndexError, KeyError, TypeError):
        raise SparseflowError(f"the plain script did not end with its line of JSON but {printed[-200:]!r}") from None
    if done != run_epochs:
        raise SparseflowError(f"the plain script trained {done} run-epochs, the study has {run_epochs}")


def _row(case: str, label: str, rans: Sequence[Ran], run_epochs: int) -> Row:
    median, spread = median_and_spread([1e3 * ran.seconds / run_epochs for ran in rans])
    return Row(case, label, median, spread, max(ran.peak_mib for ran in rans))


def run_watched(command: Sequence[str], folder: Path, threads: int | None = None) -> Ran:
    """Run a command to its end in `folder`.

    Args:
        threads: for what libraries read from the environment; None takes those variables out of it, so that the
            command has to see to its threads itself.

    Raises:
        SparseflowError: if it fails, with the end of what it wrote to standard error.
    """
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    if threads is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        peak = nan
        try:
            while True:
                try:
                    process.wait(SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    now = tree_mib(process.pid)
                    peak = now if not peak > now else peak
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        if process.returncode:
            last = "\n".join(err.read().strip().splitlines()[-5:])
            raise SparseflowError(f"{' '.join(command)} failed with status {process.returncode}: {last}")
        return Ran(seconds, peak, out.read())


def tree_mib(root: int) -> float:
    """Resident memory now of a process and everything below it, in MiB; NaN where the system has no /proc.

    Pages that processes share count in each.
    """
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in brackets, may hold anything; what follows it is numbers.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)], pages[int(folder.name)] = int(fields[1]), int(fields[21])
    if root not in pages:
        return nan
    found, grown = {root}, True
    while grown:
        more = {process for process, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sum(pages[process] for process in found) * os.sysconf("SC_PAGE_SIZE") / 2**20
