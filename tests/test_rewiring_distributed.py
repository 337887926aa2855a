"""Rewiring under DistributedDataParallel: two processes hold identical masks after every update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sparseflow import Sparse, compact
from sparseflow.core import stream, weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.train import Rewire, rewirings

RANKS, STEPS, BATCH = 2, 9, 6

pytestmark = [
    pytest.mark.slow,  # two fresh interpreters
    pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed"),
]

CASES = [(rule, compacted) for rule in rewirings.names for compacted in (False, True)]


def train(rule: str, compacted: bool, rank: int, ranks: int) -> list[dict[str, torch.Tensor]]:
    """The masks after every step, of one of `ranks` processes that share each batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    shapes = weight_shapes(model)
    masks = random_masks(shapes, uniform(shapes, 0.4), seed=3)
    if compacted:
        compact(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = Sparse(model, masks, optimizer, Rewire(rule, every=3, stop=100, fraction=0.5))
    wrapped = DistributedDataParallel(model) if ranks > 1 else model
    history = []
    for step in range(STEPS):
        draw = stream(0, "batch", step)
        x = torch.randn(RANKS * BATCH, 6, generator=draw, dtype=torch.float64)
        y = torch.randint(3, (RANKS * BATCH,), generator=draw)
        mine = slice(rank * BATCH, (rank + 1) * BATCH) if ranks > 1 else slice(None)
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x[mine]), y[mine]).backward()
        optimizer.step()
        history.append({name: mask.clone() for name, mask in sparse.masks.items()})
    return history


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found = {case: train(*case, rank, RANKS) for case in CASES}
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_every_rank_rewires_as_one_process_on_the_whole_batch_does(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    for case in CASES:
        alone = train(*case, 0, 1)
        changed = 0
        for first, second, single in zip(*(found[case] for found in ranks), alone, strict=True):
            for name, mask in single.items():
                assert torch.equal(first[name], second[name]), case
                assert torch.equal(first[name], mask), case
            changed += any(not torch.equal(mask, alone[0][name]) for name, mask in single.items())
        assert changed
