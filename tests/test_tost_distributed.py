"""Ghosts under DistributedDataParallel: two processes on one machine, over gloo."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sparseflow import Sparse, compact, tost
from sparseflow.core import stream, weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.tost import Fade

RANKS, STEPS, BATCH = 2, 5, 6

pytestmark = [
    pytest.mark.slow,  # two fresh interpreters
    pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed"),
]


def net() -> nn.Sequential:
    """With a norm over each example's own groups: batch statistics would be each rank's own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.GroupNorm(2, 8), nn.ReLU()]
        second = [nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, 8), nn.ReLU()]
        return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(8 * 9, 3)).double()


def run(compacted: bool, rank: int, ranks: int) -> dict[str, Tensor]:
    """Train on this rank's part of every batch; the state, and the losses as one of its tensors."""
    model = net()
    shapes = weight_shapes(model)
    masks = random_masks(shapes, uniform(shapes, 0.4), seed=3)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    if compacted:
        compact(model, masks)
    draw = stream(0, "example")
    x = torch.randn(2, 3, 6, 6, generator=draw, dtype=torch.float64)
    ghosts = tost.ghost_neurons_(model, Fade("linear", 3)), tost.ghost_skips_(model, Fade("cosine", 4), x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    Sparse(model, masks, optimizer)
    wrapped: nn.Module = DistributedDataParallel(model) if ranks > 1 else model
    for step in range(STEPS):
        draw = stream(0, "batch", step)
        x = torch.randn(RANKS * BATCH, 3, 6, 6, generator=draw, dtype=torch.float64)
        y = torch.randint(3, (RANKS * BATCH,), generator=draw)
        part = slice(rank * BATCH, (rank + 1) * BATCH) if ranks > 1 else slice(None)
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x[part]), y[part]).backward()
        optimizer.step()
        for one in ghosts:
            one.step()
    assert all(one.finished for one in ghosts)
    return dict(model.state_dict())


def work(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    torch.save([run(compacted, rank, RANKS) for compacted in (False, True)], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> list[list[dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ddp")
    multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(("rank", "compacted"), list(product(range(RANKS), [False, True])))
def test_two_processes_train_as_one_does_on_their_batches_together(states, rank, compacted):
    alone = run(compacted, 0, 1)
    assert alone.keys() == net().state_dict().keys() == states[rank][compacted].keys()
    for name, value in states[rank][compacted].items():
        torch.testing.assert_close(value, alone[name], rtol=1e-9, atol=1e-11, msg=name)
    assert (alone["0.weight"] - net().state_dict()["0.weight"]).abs().max() > 1e-3
