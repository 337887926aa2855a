"""What the tests of the C kernels share."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def instruction_sets(module: ModuleType) -> list[str]:
    """Those of this machine, best last."""
    found, best = [], module.isa()
    for name in ("portable", "avx2", "avx512"):
        try:
            module.use_isa(name)
        except ValueError:
            continue
        found.append(name)
    module.use_isa(best)
    return found


@contextmanager
def as_before(module: ModuleType) -> Iterator[None]:
    """Afterwards the instruction set and torch's threads are what they were."""
    best, threads = module.isa(), torch.get_num_threads()
    try:
        yield
    finally:
        module.use_isa(best)
        torch.set_num_threads(threads)


def random_mask(rng: random.Random, shape: tuple[int, ...]) -> Tensor:
    """Of any density; now and then full, with a single weight, or with empty or full outputs and inputs."""
    kind = rng.randrange(6)
    if kind == 0:
        return torch.ones(shape, dtype=torch.bool)
    mask = torch.rand(shape) < rng.choice((0.0, 0.01, 0.05, 0.2, 0.5, 0.9))
    if kind == 1:
        mask.zero_()
        mask.view(-1)[rng.randrange(mask.numel())] = True
    elif kind == 2:
        mask[rng.randrange(shape[0])] = True
        mask[:, rng.randrange(shape[1])] = True
    elif kind == 3:
        mask[torch.rand(shape[0]) < 0.5] = False
        mask[:, torch.rand(shape[1]) < 0.5] = False
    return mask


def close(got: Tensor, want: Tensor, scale: Tensor) -> None:
    """Within the tolerance of the sum of the magnitudes that were added: what rounding is relative to."""
    assert got.shape == want.shape
    error = (got.double() - want).abs()
    bound = TOLERANCE[got.dtype] * scale + torch.finfo(got.dtype).tiny
    assert bool((error <= bound).all()), float((error / bound).max())
