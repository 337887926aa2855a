"""How fast this machine is: a few products, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from sparseflow.reproduce.work import Work

_RUN_S = 0.1
"""Of a run beside its steps: building the network, writing its rows."""


@dataclass(frozen=True)
class Machine:
    """One worker of a machine.

    Attributes:
        gflops_per_s: of large products in training.
        step_s: of one layer of an optimiser step that has next to nothing to compute.
    """

    gflops_per_s: float
    step_s: float

    @classmethod
    def timed(cls) -> Machine:
        """Of this machine, one thread, in about a second."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            wide, narrow = _step(1024, 3, 128), _step(8, 3, 8)
        finally:
            torch.set_num_threads(before)
        operations = 3 * 2 * 128 * 3 * 1024**2
        return cls(operations / 1e9 / wide, narrow / 3)

    def seconds(self, work: Work) -> float:
        """Of one worker."""
        return work.gflops / self.gflops_per_s + work.layer_steps * self.step_s + work.runs * _RUN_S


def _step(width: int, layers: int, batch: int) -> float:
    """Seconds of a training step of a plain perceptron."""
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x = torch.ones(batch, width, requires_grad=True)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return _median(step)


def _median(call: Callable[[], None], rounds: int = 9) -> float:
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)
