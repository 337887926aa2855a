"""One run, from its specification to its result; the same function whatever executes it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sparseflow.core import BadSpec, Batch, Metric, Moment, SparseflowError, active_counts, stream
from sparseflow.data import Dataset, Prepared, Watch, load, prepare, stratified
from sparseflow.models import is_imported
from sparseflow.study.build import Network, build, optimizer_for, plan_for
from sparseflow.study.finding import Source, rule_for
from sparseflow.study.fingerprint import code_of, fingerprint
from sparseflow.study.lineage import predecessor, rewound_to
from sparseflow.study.measured import probe_change_of, probes_of
from sparseflow.study.sections import DataSpec
from sparseflow.study.spec import RunSpec
from sparseflow.study.surroundings import Surroundings, keep_network
from sparseflow.study.tweaks import ghosts_for, removals, rescale_start
from sparseflow.train import Outcome, Stack, Trainer, forward_flops

Row = tuple[int, float, str, str, float]
"""(step, epoch, metric, layer, value)."""

FLUSH_SECONDS = 1.0


@dataclass
class RunResult:
    """What is known of a run when it has ended."""

    status: str
    final: dict[str, float] = field(default_factory=dict)
    digest: str = ""
    step: int = 0
    epoch: int = 0
    active: dict[str, int] = field(default_factory=dict)
    execution: dict[str, str] = field(default_factory=dict)
    others: int = 0
    stacked: bool = False
    """Trained by the stacked program, alone or with others."""
    inference_flops: int = 0
    """Of one example."""
    training_flops: int = 0
    """Of all steps taken: three forward passes an example."""
    fingerprint: str = ""
    mixed: bool = False
    """Some of its epochs ran under another fingerprint."""
    data_digest: str = ""
    notes: tuple[str, ...] = ()
    resumed_at: int = 0
    """Epoch at which the attempt that ended it began."""
    wall_s: float = 0.0
    """Seconds of work, earlier attempts counted up to their last checkpoint."""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class DataCache:
    """The last data sets used in this process, so that a worker reads and splits each only once.

    Args:
        watch: told of the progress where images must be decoded.
    """

    def __init__(self, surroundings: Surroundings, watch: Watch = lambda what, done, of: None) -> None:
        self.surroundings, self._watch = surroundings, watch
        self._datasets: dict[tuple[str, int | None], Dataset] = {}
        self._prepared: tuple[Any, Prepared] | None = None

    def dataset(self, data: DataSpec) -> Dataset:
        """The whole data set, before any limit or validation split."""
        key = (data.name, data.image_size)
        if key not in self._datasets:
            root = self.surroundings.data_root
            self._datasets[key] = load(data.name, root, image_size=data.image_size, watch=self._watch)
        return self._datasets[key]

    def prepared(self, spec: RunSpec) -> Prepared:
        d = spec.data
        seed = spec.seed if d.val_fraction else None
        key = (d.name, d.image_size, d.train_limit, d.test_limit, d.val_fraction, d.scaling, seed, spec.train.dtype)
        if self._prepared is None or self._prepared[0] != key:
            ready = prepare(
                self.dataset(d),
                train_limit=d.train_limit,
                test_limit=d.test_limit,
                val_fraction=d.val_fraction,
                seed=spec.seed,
                device=self.surroundings.device,
                dtype=getattr(torch, spec.train.dtype),
                scaling=d.scaling,
            )
            self._prepared = (key, ready)
        return self._prepared[1]


Emit = Callable[[RunSpec, list[Row]], None]


@dataclass(frozen=True)
class Rungs:
    """Epochs at which runs are evaluated and go on only if they are let.

    Attributes:
        goes_on: (run, epoch, what was last measured) -> whether it does; None stops it there, to ask again.
    """

    epochs: tuple[int, ...] = ()
    goes_on: Callable[[RunSpec, int, Mapping[str, float]], bool | None] = lambda run, epoch, measured: True


def execute(
    spec: RunSpec,
    surroundings: Surroundings,
    cache: DataCache,
    emit: Callable[[list[Row]], None] = lambda rows: None,
    should_stop: Callable[[], bool] = lambda: False,
    rungs: Rungs = Rungs(),
) -> RunResult:
    """Train one run to its end, from its checkpoint if it has one.

    Args:
        emit: receives recorded values, at the latest a second or an epoch (the longer) after they were measured.
        should_stop: asked at the end of every epoch; the run then leaves a checkpoint and the status "stopped".
        rungs: a run that is not let past one leaves a checkpoint and the status "halted".
    """
    run = _Run(spec, surroundings, cache, emit, should_stop, rungs)
    if not run.network.stacked:
        return run.result(run.trainer.run())
    (outcome,) = Stack([run.trainer]).run()
    return run.result(outcome)


def execute_group(
    specs: Sequence[RunSpec],
    surroundings: Surroundings,
    cache: DataCache,
    emit: Emit = lambda spec, rows: None,
    should_stop: Callable[[], bool] = lambda: False,
    rungs: Rungs = Rungs(),
) -> Iterator[tuple[RunSpec, RunResult]]:
    """Train runs, those that can be together: each with the result that `execute` has, in the order of their ends.

    A run that raises ends as "failed"; the others go on.

    Args:
        specs: runs that `grouped` put together; what is trained stacked must differ in seed, mask and start alone.
        emit: as in `execute`, with the run.
        should_stop: asked at the end of every epoch; each run that has not ended then leaves a checkpoint, after an
            epoch at the latest, and the status "stopped".
        rungs: as in `execute`.
    """
    stopping = _Sticky(should_stop)
    unfinished: dict[str, str] = {}
    together: dict[tuple[int, int], list[_Run]] = {}
    for spec in specs:
        before = predecessor(spec)
        if before is not None and before.name in unfinished:
            ended = unfinished[before.name]
            unfinished[spec.name] = "stopped" if ended == "stopped" else "failed"
            yield (
                spec,
                RunResult(unfinished[spec.name], error="" if ended == "stopped" else f"the run before it {ended}"),
            )
            continue
        try:
            run = _Run(spec, surroundings, cache, partial(emit, spec), stopping, rungs)
            if not run.network.stacked:
                result = run.result(run.trainer.run())
                if result.status != "finished":
                    unfinished[spec.name] = result.status
                yield spec, result
                continue
        except Exception as error:
            unfinished[spec.name] = "failed"
            yield spec, _failed(error)
            continue
        # Checkpoints of one group may be of different epochs: a stack is of one.
        together.setdefault((run.trainer.epoch, run.trainer.step), []).append(run)
    for runs in together.values():
        try:
            outcomes = Stack([run.trainer for run in runs]).run()
            yield from [(run.spec, run.result(outcome)) for run, outcome in zip(runs, outcomes, strict=True)]
        except Exception as error:
            yield from [(run.spec, _failed(error)) for run in runs]


def _failed(error: Exception) -> RunResult:
    text = str(error) if isinstance(error, SparseflowError) else "".join(traceback.format_exception(error))
    return RunResult("failed", error=text)


class _Sticky:
    """A question that, once answered with yes, stays answered."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._yes = False

    def __call__(self) -> bool:
        self._yes = self._yes or self._ask()
        return self._yes


class _Run:
    """A run that is built, has taken up its checkpoint and is ready to train."""

    def __init__(
        self,
        spec: RunSpec,
        surroundings: Surroundings,
        cache: DataCache,
        emit: Callable[[list[Row]], None],
        should_stop: Callable[[], bool],
        rungs: Rungs,
    ) -> None:
        began = time.perf_counter()
        self.spec, self._surroundings = spec, surroundings
        self._data = data = cache.prepared(spec)
        self._rungs = rungs
        self._notes = cache.dataset(spec.data).notes
        source = source_for(spec, data, surroundings)
        self.network = network = build(spec, data.input_shape, data.classes, surroundings.device, source)
        rescale_start(spec, network, data, surroundings.start_path(spec.name))
        ghosts = ghosts_for(spec, network.model, data)
        example = data.example()
        self._fingerprint = fingerprint(surroundings.device, surroundings.threads) + code_of(spec.model.name)
        self._outbox = _Outbox(emit)
        self.trainer = Trainer(
            network.model,
            network.masks,
            optimizer_for(spec, network.model),
            data,
            plan_for(spec),
            probes=probes_of(spec, data),
            record=self._outbox,
            save_to=surroundings.resume_path(spec.name),
            should_stop=should_stop,
            identity=_identity(spec, data, network),
            fingerprint=self._fingerprint,
            save_every_s=surroundings.checkpoint_seconds,
            start_step=_start_step(spec),
            at_steps=_in_turn(self._keep_rewind(), removals(ghosts, lambda values: self.trainer.note(values))),
            rule=rule_for(spec, network.model),
            companions=ghosts,
            probe_change=probe_change_of(spec),
            flops_of=lambda masks: forward_flops(network.model, masks, example),
            rungs=rungs.epochs,
            goes_on=self._ask,
        )
        _check_rewind(spec, surroundings, _start_step(spec), self.trainer.total_steps)
        if self.trainer.resume() == "damaged":
            self._notes += (_DAMAGED,)
        self._resumed_at = self.trainer.epoch
        self._outbox.rows.extend(self.trainer.history.rows)
        self._building = time.perf_counter() - began

    def result(self, outcome: Outcome) -> RunResult:
        """What is known of the run now that it has ended; its last rows are emitted."""
        self._outbox.flush()
        network, trainer = self.network, self.trainer
        final_path = self._surroundings.kept_path(self.spec)
        if final_path is not None and outcome.status not in ("stopped", "halted"):
            keep_network(network.model, trainer.sparse.masks, self.spec, final_path)
        return RunResult(
            status=outcome.status,
            final=outcome.final,
            digest=outcome.digest,
            step=outcome.step,
            epoch=outcome.epoch,
            active=active_counts(network.model, trainer.sparse.masks),
            execution=network.execution,
            others=network.others,
            stacked=network.stacked,
            inference_flops=trainer.example_flops,
            training_flops=trainer.training_flops,
            fingerprint=self._fingerprint,
            mixed=trainer.mixed,
            data_digest=self._data.digest,
            notes=self._notes,
            resumed_at=self._resumed_at,
            wall_s=trainer.worked() + self._building,
        )

    def _ask(self, epoch: int, measured: Mapping[str, float]) -> bool | None:
        """Whether the run passes a rung; what it is judged by is emitted before."""
        self._outbox.flush()
        return self._rungs.goes_on(self.spec, epoch, measured)

    def _keep_rewind(self) -> dict[int, Callable[[], None]]:
        """The weights of early steps that other runs go back to are kept as they come."""

        def keep(path: Path) -> Callable[[], None]:
            return lambda: keep_network(self.network.model, {}, self.spec, path)

        return {step: keep(path) for step, path in self._surroundings.rewind_paths(self.spec).items()}


def source_for(spec: RunSpec, data: Prepared, surroundings: Surroundings) -> Source:
    """What a run's mask is found from: a stratified sample of its training data, and the runs before it."""

    def batches() -> list[Batch]:
        drawn = stratified(data.train.y, min(spec.mask.examples, len(data.train)), stream(spec.seed, "score"))
        return [data.batch(data.train, part) for part in drawn.split(spec.train.batch_size)]

    return Source(batches, plan_for(spec).loss, surroundings.final_path, surroundings.rewind_path, surroundings.file)


def _check_rewind(spec: RunSpec, surroundings: Surroundings, begun: int, steps: int) -> None:
    """A training that begins at a step, or leaves its weights of one, must come by it."""
    start = rewound_to(spec)
    for step in [*surroundings.rewind_paths(spec), *([start[1]] if start is not None else [])]:
        if step >= steps:
            raise BadSpec([f"rewind_step {step} is past the training's {steps} steps"])
        if step < begun:
            raise BadSpec([f"rewind_step {step} is before step {begun}, from which the training itself goes on"])


def _start_step(spec: RunSpec) -> int:
    """Rewound weights go on with the schedule and the data order of the step that they were taken at."""
    start = rewound_to(spec)
    return 0 if start is None else start[1]


_DAMAGED = "a damaged checkpoint was set aside (.bad) and the run started afresh"


def _identity(spec: RunSpec, data: Prepared, network: Network) -> str:
    """What a checkpoint belongs to: the run, on these very data, in this execution."""
    # The layers of a model of one's own may change between two attempts: then its checkpoint is not passed over in
    # silence, but does not fit.
    if is_imported(spec.model.name):
        return f"{spec.name} {data.digest} {sorted(set(network.execution.values()))}"
    return f"{spec.name} {data.digest} {sorted(network.execution.items())}"


def _in_turn(*tasks: Mapping[int, Callable[[], None]]) -> dict[int, Callable[[], None]]:
    """Step -> all that is to be done after it."""

    def at(step: int) -> Callable[[], None]:
        due = [some[step] for some in tasks if step in some]

        def do_all() -> None:
            for do in due:
                do()

        return do_all

    return {step: at(step) for some in tasks for step in some}


class _Outbox:
    """Collects recorded rows and passes them on about once a second."""

    def __init__(self, emit: Callable[[list[Row]], None]) -> None:
        self.rows: list[Row] = []
        self._emit = emit
        self._at = time.monotonic()

    def __call__(self, at: Moment, values: Mapping[Metric, float]) -> None:
        self.rows.extend((at.step, at.epoch, m.name, m.layer, float(v)) for m, v in values.items())
        if time.monotonic() - self._at > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self._emit(self.rows)
            self.rows = []
        self._at = time.monotonic()
