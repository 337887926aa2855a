"""When a training has ended nothing of it stays in memory: a worker trains thousands of networks."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
import torch
from torch import nn

from sparseflow.masks import criteria
from sparseflow.study import RunSpec, Surroundings, execute_group, validate
from sparseflow.train import Sparse, optimizers, rewirings

KINDS = {
    "batch norm": {"model": {"norm": "batch", "skip": True}},
    "convolutional": {"model": {"name": "resnet", "depth": 8, "width": 4}},
    "ToST": {
        "model": {"name": "resnet", "depth": 8, "width": 4},
        "tost": {"neurons": True, "skips": True, "until": 1, "rescale": {"iterations": 2}, "smoothing": 0.1},
    },
    "curvature": {"measure": {"eigenvalues": 1}},
    **{f"criterion {name}": {"mask": {"criterion": name}} for name in criteria.names},
    **{f"rule {name}": {"rewire": {"rule": name, "every": 3, "stop": 1.0}} for name in rewirings.names},
    **{f"optimizer {name}": {"optimizer": {"name": name}} for name in optimizers.names},
}


@pytest.fixture(autouse=True, scope="module")
def _without_the_other_tests():
    """What is there already is not looked through again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def parameters() -> int:
    gc.collect()
    return sum(type(o) is nn.Parameter for o in gc.get_objects())


def left_over(cache, *runs) -> int:
    before = parameters()
    for _, result in execute_group(runs, Surroundings(), cache):
        assert result.status == "finished", result.error
    return parameters() - before


@pytest.mark.parametrize("execution", ["masked", "compact"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_outlives_its_run(kind, execution, small, cache):
    sections = KINDS[kind]
    run = small().changes() | {"model": {"depth": 3, "width": 24}}
    mask = {"density": 0.3, "execution": execution, **sections.get("mask", {})}
    assert left_over(cache, validate(RunSpec, run | sections | {"mask": mask})) == 0


def test_no_weight_outlives_a_dense_run_or_one_that_prunes_on_its_way(small, cache):
    assert left_over(cache, small(mask={"twin_width": None})) == 0
    gradual = {"start": 2, "end": 8, "every": 2}
    assert left_over(cache, small(mask={"twin_width": None, "density": 0.3, "gradual": gradual})) == 0


def test_no_weight_outlives_runs_that_were_trained_together(small, cache):
    runs = [small(seed=seed) for seed in range(3)]
    assert left_over(cache, *runs) == 0


@pytest.mark.parametrize("steps", [0, 2])
def test_nothing_of_a_loop_of_ones_own_stays(steps):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters())
    masks = {name: torch.rand_like(p) < 0.5 for name, p in model.named_parameters() if p.dim() == 2}
    sparse = Sparse(model, masks, optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().mean().backward()
        optimizer.step()
    gone = [ref(p) for p in model.parameters()]
    del model, optimizer, sparse
    gc.collect()
    assert [one() for one in gone] == [None] * 4
