"""How long a study will take on this machine, from a few timed steps of its kinds of run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import torch

from sparseflow.core import stream
from sparseflow.data import Prepared
from sparseflow.measure import CurvatureProbe
from sparseflow.measure.probes import PRODUCTS
from sparseflow.study.build import build, optimizer_for, plan_for, stacks
from sparseflow.study.groups import MOST_TOGETHER, shape_key
from sparseflow.study.lineage import first_round, predecessor
from sparseflow.study.measured import probes_of
from sparseflow.study.reload import BATCH
from sparseflow.study.run import DataCache, source_for
from sparseflow.study.spec import RunSpec
from sparseflow.study.surroundings import Surroundings
from sparseflow.study.tweaks import ghosts_for
from sparseflow.train import Stack, Trainer

_WARM_UP, _STEPS, _SECONDS = 1, 5, 1.0


class Estimator:
    """Times steps, evaluations and measurements of the kinds of run in a study, as many as a time budget allows.

    Runs that differ in seed or penalty alone are one kind. Every size (widths, data, execution) is timed in one kind at
    least; a kind that the budget does not reach is taken as the mean of the timed kinds of its size.
    """

    def __init__(self, surroundings: Surroundings, cache: DataCache, budget_s: float = 40.0) -> None:
        self._surroundings, self._cache, self._budget_s = surroundings, cache, budget_s
        self._step_ms: dict[str, float] = {}

    def step_ms(self, run: RunSpec) -> float:
        """Milliseconds of one step of a run's size, as `seconds` timed it in the first kind of that size."""
        return self._step_ms[_size(_timeable(run))]

    def gradient_s(self, run: RunSpec) -> float:
        """Seconds of the loss's gradient on one example, in batches as finished networks are looked at in."""
        same = _timeable(run)
        wide = same.model_copy(update={"train": same.train.model_copy(update={"batch_size": BATCH})})
        data = self._cache.prepared(wide)
        return _median(_alone(self._trainer(wide, data, wide.seed)).step) / min(BATCH, len(data.train))

    def seconds(self, runs: Sequence[RunSpec], watch: Callable[[int, int], None] = lambda done, of: None) -> float:
        """Estimated wall time of all runs on one worker, in seconds.

        Args:
            watch: told how many kinds have been timed, of how many.
        """
        runs = [_timeable(run) for run in runs]
        kinds = {_kind(run): run for run in reversed(runs)}
        alike = Counter(shape_key(run) for run in runs)
        first_of_size = {_size(run): _kind(run) for run in reversed(runs)}
        order = [*first_of_size.values(), *(kind for kind in reversed(kinds) if kind not in first_of_size.values())]
        timed: dict[str, float] = {}
        began = time.monotonic()
        before = torch.get_num_threads()
        torch.set_num_threads(self._surroundings.threads)
        try:
            for k, kind in enumerate(order):
                if k >= len(first_of_size) and time.monotonic() - began > self._budget_s:
                    break
                watch(k, len(order))
                timed[kind] = self._time(kinds[kind], min(MOST_TOGETHER, alike[shape_key(kinds[kind])]))
        finally:
            torch.set_num_threads(before)
        of_size: dict[str, list[float]] = {}
        for kind, seconds in timed.items():
            of_size.setdefault(_size(kinds[kind]), []).append(seconds)
        return sum(timed[_kind(run)] if _kind(run) in timed else fmean(of_size[_size(run)]) for run in runs)

    def _time(self, spec: RunSpec, together: int) -> float:
        """Seconds of one run, of which `together` would share a program if they are trained stacked."""
        began = time.perf_counter()
        data = self._cache.prepared(spec)
        stacked = stacks(spec, data.input_shape, data.classes)
        trainers = [self._trainer(spec, data, seed) for seed in range(together if stacked else 1)]
        start_up = (time.perf_counter() - began) / len(trainers)
        lead = trainers[0]
        timed: _Timed = _stacked(trainers) if stacked else _alone(lead)
        step, evaluation = _median(timed.step), _median(timed.evaluate)
        self._step_ms.setdefault(_size(spec), 1e3 * step / len(trainers))
        points, every = spec.measure.points, spec.train.eval_every
        flow = points * step * min(spec.measure.probe_size, len(data.train)) / spec.train.batch_size
        evaluations = points + (spec.train.epochs / every if every else 1)
        work = lead.total_steps * step + evaluations * evaluation + (flow if spec.measure.gradient_flow else 0.0)
        return start_up + work / len(trainers) + points * _curvature(spec, data, lead)

    def _trainer(self, spec: RunSpec, data: Prepared, seed: int) -> Trainer:
        own = _timeable(spec.model_copy(update={"seed": seed}))
        source = source_for(own, data, self._surroundings)
        network = build(own, data.input_shape, data.classes, self._surroundings.device, source)
        ghosts = ghosts_for(own, network.model, data)
        optimizer = optimizer_for(own, network.model)
        return Trainer(network.model, network.masks, optimizer, data, plan_for(own), companions=ghosts)


def _timeable(spec: RunSpec) -> RunSpec:
    """The run, or one that takes as long and needs no other run to have ended."""
    if spec.mask.inherited is None:
        return first_round(spec)
    before = predecessor(spec)
    assert before is not None
    same = _timeable(before).mask.model_copy(update={"gradual": None, "execution": spec.mask.execution})
    return spec.model_copy(update={"mask": same})


class _Timed(NamedTuple):
    """What a training does over and over."""

    step: Callable[[], object]
    evaluate: Callable[[], object]


def _alone(trainer: Trainer) -> _Timed:
    data = trainer.data
    indices = torch.arange(min(trainer.plan.batch_size, len(data.train)), device=data.device)
    draws = stream(0, "estimate")
    return _Timed(lambda: trainer.train_step(indices, draws), trainer.evaluate)


def _stacked(trainers: list[Trainer]) -> _Timed:
    stack, data = Stack(trainers), trainers[0].data
    indices = torch.arange(min(trainers[0].plan.batch_size, len(data.train)), device=data.device)
    indices = indices.expand(len(trainers), -1)
    y = data.train.y[indices]
    losses = torch.empty(len(trainers), dtype=data.dtype, device=data.device)
    augment = [stream(0, "estimate") for _ in trainers]
    dropout = [torch.Generator(data.device) for _ in trainers]
    return _Timed(lambda: stack.train_step(indices, y, losses, augment, dropout), stack.evaluate)


def _curvature(spec: RunSpec, data: Prepared, trainer: Trainer) -> float:
    """Seconds that the ends of a network's spectrum take, from a few products; 0 of a run that does not measure it."""
    seconds = 0.0
    for probe in probes_of(spec, data):
        if isinstance(probe, CurvatureProbe):
            hessian = probe.hessian(trainer.model, trainer.sparse.masks)
            vector = torch.randn(hessian.size, generator=stream(0, "estimate")).to(hessian.weights)
            seconds += PRODUCTS * _median(lambda: hessian.matvec(vector))  # noqa: B023 - called at once
    return seconds


def _kind(run: RunSpec) -> str:
    """What the time of a run depends on."""
    optimizer = run.optimizer.model_copy(update={"weight_decay": 0.0, "l1": 0.0, "lr": 1.0})
    return run.model_copy(update={"seed": 0, "optimizer": optimizer}).model_dump_json()


def _size(run: RunSpec) -> str:
    """The part of it that matters most: everything but the optimiser and what is cheap beside the products."""
    model = run.model.model_copy(update={"activation": "", "norm": "none", "skip": False, "dropout": 0.0})
    data = run.data.model_copy(update={"augment": False})
    parts = (data, model, run.mask, run.train, run.measure)
    return "|".join(part.model_dump_json() for part in parts)


def _median(call: Callable[[], object]) -> float:
    times = []
    began = time.perf_counter()
    for k in range(_WARM_UP + _STEPS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if k >= _WARM_UP and time.perf_counter() - began > _SECONDS:
            break
    return sorted(times[_WARM_UP:])[len(times[_WARM_UP:]) // 2]
