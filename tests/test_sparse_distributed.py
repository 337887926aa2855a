"""`Sparse` and compact layers under DistributedDataParallel: two processes on one machine, over gloo."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sparseflow import Sparse, compact
from sparseflow.core import stream, weight_shapes
from sparseflow.masks import random_masks, uniform

RANKS, STEPS, BATCH = 2, 4, 6

pytestmark = [
    pytest.mark.slow,  # two fresh interpreters
    pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed"),
]


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).double()


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    shapes = weight_shapes(model)
    return random_masks(shapes, uniform(shapes, 0.3), seed=3)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Of all ranks together."""
    draw = stream(0, "batch", step)
    x = torch.randn(RANKS * BATCH, 6, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (RANKS * BATCH,), generator=draw)


CASES = [
    {"compacted": compacted, "sparse_first": first, "bucket_view": view, "accumulate": accumulate, "keep_grads": keep}
    for compacted, first, view, accumulate, keep in product([False, True], repeat=5)
]


def run(case: dict[str, bool], rank: int, ranks: int) -> dict[str, Tensor]:
    """Train on this rank's part of every batch; the state, the gradients of the last step, and the masks."""
    model = net()
    masks = masks_of(model)
    if case["compacted"]:
        compact(model, masks)
    elif rank:
        with torch.no_grad():  # DDP must bring all ranks to the first one's start
            for p in model.parameters():
                p.add_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    wrapped: nn.Module = model
    if case["sparse_first"]:
        sparse = Sparse(model, masks, optimizer)
    if ranks > 1:
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=case["bucket_view"], bucket_cap_mb=0.001)
    if not case["sparse_first"]:
        sparse = Sparse(model, masks, optimizer)
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=not case["keep_grads"])
        parts = [batch(2 * step), batch(2 * step + 1)] if case["accumulate"] else [batch(step)]
        for k, (x, y) in enumerate(parts):
            x, y = x[rank::ranks], y[rank::ranks]
            if ranks > 1 and k + 1 < len(parts):
                with wrapped.no_sync():
                    F.cross_entropy(wrapped(x), y).backward()
            else:
                F.cross_entropy(wrapped(x), y).backward()
            if not case["compacted"]:
                for name, mask in masks.items():
                    assert not model.get_parameter(name).grad[~mask].any(), "the masked gradient stays 0"
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert sparse.steps == STEPS
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    masked = {f"mask of {name}": mask for name, mask in sparse.masks.items()}
    return {**model.state_dict(), **gradients, **masked}


def under_power_sgd() -> tuple[bool, bool]:
    """Whether masked gradients are 0 after a compressing all-reduce, and after `mask_gradients`."""
    model = net().float()
    masks = masks_of(model)
    sparse = Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    wrapped = DistributedDataParallel(model)
    wrapped.register_comm_hook(PowerSGDState(None, 1, start_powerSGD_iter=2, min_compression_rate=0.5), powerSGD_hook)
    for step in range(4):
        model.zero_grad()
        x, y = batch(step)
        F.cross_entropy(wrapped(x.float()), y).backward()
    zero = []
    for _ in range(2):
        zero.append(not any(model.get_parameter(name).grad[~mask].any() for name, mask in masks.items()))
        sparse.mask_gradients()
    return zero[0], zero[1]


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    try:
        found = [run(case, rank, RANKS) for case in CASES]
        torch.save({"cases": found, "power": under_power_sgd()}, Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(rank_main, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(
    "case", range(len(CASES)), ids=lambda k: " ".join(n for n, on in CASES[k].items() if on) or "-"
)
def test_all_ranks_end_alike_and_like_one_process_on_the_whole_batch(ranks, case):
    first, second = (rank["cases"][case] for rank in ranks)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    alone = run(CASES[case], 0, 1)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-9, atol=1e-12, msg=name)
    for name, mask in masks_of(net()).items():
        assert not first[name][~mask].any()
        assert first[name][mask].all()


def test_a_hook_that_changes_gradients_on_the_way_needs_a_mask_after_it(ranks):
    """As documented: PowerSGD sends a low-rank approximation, whose masked entries are not 0."""
    for rank in ranks:
        before, after = rank["power"]
        assert not before
        assert after
