"""`sparseflow bench overhead`: what keeping masks costs a training step of ResNet-18 on images of CIFAR's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import nan

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.bench.memory import peak_mib
from sparseflow.bench.timing import SETTLING, Row, interleaved, median_and_spread, thread_limit, threads_text
from sparseflow.core import BadValue, check_fraction, check_positive, global_stream, stream, weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.models import models
from sparseflow.train import Sparse, make_optimizer, resolve_implementation

BATCHES = (32, 128)
LOOPS = ("without masks", "Sparse", "weight *= mask")
"""The same network and optimiser: without anything that keeps its zeros, with `Sparse`, and with the line that one
would write after `optimizer.step()`, which leaves gradients and optimiser state as they are."""

ALONE = "masking alone"
"""What `Sparse` does in a step and nothing else: a hundredth of a step, which the noise of whole steps can hide."""

NAMES = (*LOOPS, ALONE)

TURN_MS = 100.0


@dataclass(frozen=True)
class OverheadCase:
    """A training step of ResNet-18.

    Attributes:
        density: of every weight, biases and normalisation left whole.
        width: channels of the first stage; 64 makes it ResNet-18.
        side: pixels of an image along either side.
    """

    batch: int = 128
    optimizer: str = "momentum"
    density: float = 0.1
    width: int = 64
    side: int = 32

    def __post_init__(self) -> None:
        check_positive("batch", self.batch)
        check_positive("width", self.width)
        check_fraction("density", self.density)

    @property
    def title(self) -> str:
        how = resolve_implementation(self.optimizer, "auto")
        return f"overhead, resnet18, density {self.density:g}, batch {self.batch}, {self.optimizer} ({how})"


def make_overhead_step(name: str, case: OverheadCase) -> Callable[[], Tensor]:
    """A closure that takes one optimisation step on a fixed random batch and returns the loss.

    Args:
        name: one of `LOOPS`, which start from the same weights, with zeros where the masks are off; or `ALONE`, whose
            closure masks what one step of "Sparse" left (gradients, weights, optimiser state) and returns its loss.

    Raises:
        BadValue: for another name.
    """
    if name not in NAMES:
        raise BadValue(f"implementation must be one of {', '.join(NAMES)}, got {name!r}")
    draw = stream(0, "bench")
    with global_stream(0, "init"):
        model = models["resnet-18"]((3, case.side, case.side), 10, width=case.width)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, uniform(shapes, case.density), seed=0)
    masked = [(model.get_parameter(weight), mask) for weight, mask in masks.items()]
    _multiply(masked)
    optimizer = make_optimizer(case.optimizer, model.parameters(), lr=1e-4)
    sparse = Sparse(model, masks, optimizer) if name in ("Sparse", ALONE) else None
    x = torch.randn((case.batch, 3, case.side, case.side), generator=draw)
    y = torch.randint(10, (case.batch,), generator=draw)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if name == "weight *= mask":
            _multiply(masked)
        return loss.detach()

    if name != ALONE:
        return step
    assert sparse is not None
    loss = step()

    def mask() -> Tensor:
        sparse.mask_gradients()
        sparse.enforce()
        return loss

    return mask


@torch.no_grad()
def _multiply(masked: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, mask in masked:
        parameter.mul_(mask)


def bench_overhead(
    cases: Sequence[OverheadCase],
    *,
    rounds: int = 15,
    threads: int = 1,
    memory: bool = True,
    report: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Median time of a training step, the implementations in turn, and peak memory of each in a fresh process.

    Raises:
        BadValue: for fewer than two rounds.
    """
    if rounds < 2:
        raise BadValue(f"rounds must be at least 2, got {rounds}")
    rows = []
    for case in cases:
        report(f"{case.title}: timing")
        with thread_limit(threads):
            times = interleaved(
                {name: make_overhead_step(name, case) for name in NAMES}, rounds, turn_ms=TURN_MS, settling=SETTLING
            )
        small = replace(case, batch=2, width=4, side=8)
        for name, found in times.items():
            peak = nan
            if memory:
                report(f"{case.title}: memory of {name}")
                peak = peak_mib(make_overhead_step, (name, case), (name, small), threads=threads)
            rows.append(Row(f"{case.title}, {threads_text(threads)}", name, *median_and_spread(found), peak))
    return rows
