"""Scoring leaves nothing behind: values, buffers, modes, gradients, hooks and every generator are as before."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pruning import run
from small_nets import NETS, case
from sparseflow.core import Batch
from sparseflow.masks import Snapshot, criteria, prune
from witness import Witness

every_net = pytest.mark.parametrize("net", NETS)
every_criterion = pytest.mark.parametrize("criterion", criteria.names)


@every_net
@every_criterion
@pytest.mark.parametrize("mode", ["train", "eval", None])
def test_scoring_leaves_nothing_behind(net, criterion, mode):
    of = case(net)
    witness = Witness(of)
    run(criterion, of, 0.4, mode=mode)
    witness.check()


class Stop(Exception):
    pass


@every_net
@every_criterion
def test_nothing_is_left_behind_where_scoring_raises(net, criterion):
    of = case(net)
    witness = Witness(of)

    def fails(*_):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        raise Stop

    with pytest.raises(Stop):
        run(criterion, of, 0.4, progress=fails)
    witness.check()
    if criteria.entry(criterion).facts["needs_batches"]:
        of.loss = fails
        with pytest.raises(Stop):
            run(criterion, of, 0.4)
        witness.check()


def test_a_criterion_of_ones_own_that_raises_leaves_nothing_behind():
    of = case("residual")
    witness = Witness(of)

    def destroys(at: Snapshot):
        for tensor in at.model.state_dict().values():
            tensor.zero_()
        at.model.zero_grad(set_to_none=True)
        at.model.eval()
        torch.manual_seed(1)
        raise Stop

    with pytest.raises(Stop):
        prune(of.model, destroys, 0.5)
    witness.check()


class Noisy:
    """Batches whose reading draws from all three global generators, as augmentation does."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for x, y in self.batches:
            yield x + 0.01 * torch.randn(x.shape) * np.random.rand() * random.random(), y  # noqa: NPY002


@every_criterion
@pytest.mark.parametrize("kind", ["shuffled", "noisy", "once"])
@pytest.mark.parametrize("per_class", [None, 1])
def test_loaders_that_draw_leave_nothing_behind_and_give_the_same_masks(criterion, kind, per_class):
    of = case("perceptron")
    x, y = (torch.cat(parts) for parts in zip(*of.batches, strict=True))
    witness = Witness(of)
    makes = {
        "shuffled": lambda: DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True),
        "noisy": lambda: Noisy(of.batches),
        "once": lambda: iter(Noisy(of.batches)),
    }
    first = run(criterion, of, 0.4, batches=makes[kind](), samples_per_class=per_class)
    witness.check()
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002 - elsewhere in the global streams
    again = run(criterion, of, 0.4, batches=makes[kind](), samples_per_class=per_class)
    assert all(torch.equal(first[name], again[name]) for name in first)


@every_criterion
def test_a_loader_is_not_opened_more_often_than_it_is_read(criterion):
    """Opening one may start worker processes."""
    of = case("perceptron")
    opened, finished = [], []

    class Counted:
        def __iter__(self) -> Iterator[Batch]:
            opened.append(1)
            yield from of.batches
            finished.append(1)

    run(criterion, of, 0.4, batches=Counted(), rounds=1)
    if criteria.entry(criterion).facts["needs_batches"]:
        assert len(opened) == len(finished) > 0
    else:
        assert len(opened) <= 1  # for the shape of an example
