"""How much arithmetic runs take: counted, not timed, so that every scale of every item can be compared at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from statistics import fmean

import torch
from torch import Tensor, nn

from sparseflow.core import mode, weight_shapes
from sparseflow.measure.probes import OF_A_PRODUCT, PRODUCTS
from sparseflow.models import maximum_width, sketch
from sparseflow.study import RunSpec
from sparseflow.train import forward_flops

_SPARSE_PRICE = 2.5
"""Of a compact product, in products of its active weights alone (docs/benchmarks.md)."""

_FULL_CHANNELS = 16
"""Convolutions of fewer channels leave a processor's lanes idle, and cost as if they had so many."""

_GRADIENT = 3
"""Passes of a training step: forward, gradient of the input, gradient of the weights."""


@dataclass(frozen=True)
class Work:
    """Of some runs.

    Attributes:
        runs: how many.
        gflops: floating-point operations, 1e9, of all trainings and evaluations; those of narrow convolutions count as
            what a processor could do meanwhile.
        layer_steps: optimiser steps times layers: what there is of calls.
    """

    runs: int = 0
    gflops: float = 0.0
    layer_steps: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.runs + other.runs, self.gflops + other.gflops, self.layer_steps + other.layer_steps)


def together(studies: Iterable[tuple[str, Sequence[RunSpec]]]) -> list[RunSpec]:
    """The runs of studies, given with their kinds, that an item takes.

    Studies of one kind share a store, so a run that two of them have counts once. Searches share nothing, and before a
    search its trials are all one stand-in.
    """
    found: list[RunSpec] = []
    had: set[tuple[str, str]] = set()
    for kind, runs in studies:
        for run in runs:
            if kind == "search" or (kind, run.name) not in had:
                had.add((kind, run.name))
                found.append(run)
    return found


def work_of(runs: Iterable[RunSpec], shape: Callable[[str], tuple[int, int, tuple[int, ...], int]]) -> Work:
    """What runs take.

    Args:
        shape: data set -> (training examples, test examples, shape of an input, classes).
    """
    total = Work()
    for run in runs:
        total += _one(run, *shape(run.data.name))
    return total


def work_of_looking(
    gradients: float, runs: Sequence[RunSpec], shape: Callable[[str], tuple[int, int, tuple[int, ...], int]]
) -> Work:
    """What an analysis takes of networks such as these runs', given in gradients of the loss on one example."""
    flops = fmean(
        _forward(run.model.name, tuple(run.model.arguments().items()), *shape(run.data.name)[2:])[0] for run in runs
    )
    return Work(0, gradients * _GRADIENT * flops / 1e9, 0.0)


def _one(run: RunSpec, train: int, test: int, shape: tuple[int, ...], classes: int) -> Work:
    flops, layers = _forward(run.model.name, tuple(run.model.arguments().items()), shape, classes)
    examples = min(run.data.train_limit or train, train)
    tests = min(run.data.test_limit or test, test)
    epochs, every = run.train.epochs, run.train.eval_every
    evaluations = run.measure.points + (epochs / every if every else 1)
    trained = _GRADIENT * flops * examples * epochs * _price(run, shape)
    passes = _GRADIENT * (1 + (PRODUCTS * OF_A_PRODUCT if run.measure.eigenvalues else 0))
    watched = flops * tests * evaluations + passes * flops * run.measure.points * min(run.measure.probe_size, examples)
    steps = epochs * ceil(examples / run.train.batch_size)
    return Work(1, (trained + watched) / 1e9, steps * layers)


def _price(run: RunSpec, shape: tuple[int, ...]) -> float:
    """Part of the dense work that a sparse training costs."""
    mask = run.mask
    if mask.gradual is not None or mask.execution == "masked" or not mask.sparse:
        return 1.0
    if mask.twin_width is not None:
        width = run.model.width or maximum_width(prod(shape))
        return min(1.0, _SPARSE_PRICE * (mask.twin_width / width) ** 2)
    return min(1.0, _SPARSE_PRICE * mask.density) if mask.density is not None else 1.0


@lru_cache(maxsize=4096)
def _forward(
    name: str, options: tuple[tuple[str, object], ...], shape: tuple[int, ...], classes: int
) -> tuple[float, int]:
    """Operations of a forward pass of one example, and weight layers; nothing is computed."""
    model = sketch(name, shape, classes, **dict(options))
    idle = 0.0

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        narrowest = min(layer.in_channels // layer.groups, layer.out_channels)
        lost = max(0.0, _FULL_CHANNELS / narrowest - 1.0)
        nonlocal idle
        idle += lost * 2 * layer.weight.numel() * output.numel() / output.shape[1]

    handles = [layer.register_forward_hook(watch) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with mode(model, training=False):
        operations = forward_flops(model, {}, torch.zeros(1, *shape, device="meta"))
    for handle in handles:
        handle.remove()
    return operations + idle, len(weight_shapes(model))
