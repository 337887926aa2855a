"""How long a study will take on this machine, from a few timed steps of its kinds of run."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import torch

from sparseflow.core import stream
from sparseflow.study.build import build, optimizer_for, plan_for
from sparseflow.study.run import DataCache, Surroundings
from sparseflow.study.spec import RunSpec
from sparseflow.train import Trainer, evaluate

_WARM_UP, _STEPS, _SECONDS = 1, 5, 1.0


class Estimator:
    """Times steps, evaluations and measurements; runs that differ in seed or penalty alone share one timing."""

    def __init__(self, surroundings: Surroundings, cache: DataCache) -> None:
        self._surroundings, self._cache = surroundings, cache
        self._seconds: dict[Hashable, float] = {}

    def known(self, spec: RunSpec) -> bool:
        return self._kind(spec) in self._seconds

    def seconds(self, spec: RunSpec) -> float:
        """Estimated wall time of one run on one worker."""
        kind = self._kind(spec)
        if kind not in self._seconds:
            before = torch.get_num_threads()
            torch.set_num_threads(self._surroundings.threads)
            try:
                self._seconds[kind] = self._time(spec)
            finally:
                torch.set_num_threads(before)
        return self._seconds[kind]

    def _kind(self, spec: RunSpec) -> Hashable:
        quiet = {"weight_decay": 0.0, "l1": 0.0, "lr": 1.0}
        return spec.model_copy(
            update={"seed": 0, "optimizer": spec.optimizer.model_copy(update=quiet)}
        ).model_dump_json()

    def _time(self, spec: RunSpec) -> float:
        began = time.perf_counter()
        data = self._cache.prepared(spec)
        network = build(spec, data.input_shape, data.classes, self._surroundings.device)
        start_up = time.perf_counter() - began
        optimizer = optimizer_for(spec, network.model)
        trainer = Trainer(network.model, network.masks, optimizer, data, plan_for(spec))
        indices = torch.arange(min(spec.train.batch_size, len(data.train)), device=data.device)
        draws = stream(0, "estimate")
        step = _median(lambda: trainer.train_step(indices, draws))
        sample = data.test.take(torch.arange(min(1000, len(data.test))))
        evaluation = (
            _median(lambda: evaluate(network.model, data, sample, trainer.plan.loss)) * len(data.test) / len(sample)
        )
        points = spec.measure.points
        flow = points * step * min(spec.measure.probe_size, len(data.train)) / spec.train.batch_size
        every = spec.train.eval_every
        evaluations = points + (spec.train.epochs / every if every else 1)
        total = start_up + trainer.total_steps * step + evaluations * evaluation
        return total + (flow if spec.measure.gradient_flow else 0.0)


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
