"""What a measurement may do with a model: look at it in a mode, or work on a copy of its own."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy
import torch
from torch import nn

from sparseflow.core import BadValue, Batch, mode

BatchNorm = Literal["train", "eval"]
"""Normalise with each batch's statistics, or with the running ones."""


def normalisations(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch normalisations of a model."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def set_mode(model: nn.Module, batch_norm: BatchNorm) -> None:
    """Evaluation mode, with batch normalisation as asked.

    Raises:
        BadValue: for an unknown `batch_norm`.
    """
    if batch_norm not in ("train", "eval"):
        raise BadValue(f"batch_norm must be 'train' or 'eval', got {batch_norm!r}")
    model.eval()
    if batch_norm == "train":
        for norm in normalisations(model):
            norm.train()


@contextmanager
def probing(model: nn.Module, batch_norm: BatchNorm) -> Iterator[None]:
    """Evaluation mode, with batch normalisation as asked; modes and buffers are restored."""
    kept = [(buffer, buffer.clone()) for norm in normalisations(model) for buffer in norm.buffers(recurse=False)]
    with mode(model, training=False):
        set_mode(model, batch_norm)
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)


def own_copy(model: nn.Module, batch_norm: BatchNorm) -> nn.Module:
    """A copy to change at will, in evaluation mode with batch normalisation as asked, without gradients."""
    work = copy.deepcopy(model).requires_grad_(False)
    set_mode(work, batch_norm)
    return work


def read(batches: Iterable[Batch]) -> list[Batch]:
    """All batches, held in memory; the global generators, which loaders draw from, are as before.

    Raises:
        BadValue: if there are none.
    """
    python, numpys = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - loaders may draw from it
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            found = list(batches)
    finally:
        random.setstate(python)
        numpy.random.set_state(numpys)  # noqa: NPY002
    if not found:
        raise BadValue("no batches were given to measure on; give batches=[(inputs, targets), ...]")
    return found
