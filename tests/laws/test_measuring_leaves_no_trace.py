"""Measuring leaves nothing behind in a model: values, buffers, modes, gradients, hooks and generators stay."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from small_nets import NETS, case
from sparseflow.measure import Hessian
from sparseflow.measure.curvature import extremes, hutchinson, predicted_step, quadrature, spectrum
from witness import Witness


def curvature(of, **options) -> None:
    hessian = Hessian(of.model, of.loss, of.batches, **options)
    predicted_step(hessian, 0.1)
    extremes(hessian, 1, max_steps=3, tolerance=10.0)
    quadrature(hessian, probes=1, steps=2)
    hutchinson(hessian, probes=2)
    if hessian.size < 100:
        spectrum(hessian)


MEASUREMENTS = {
    "curvature": curvature,
    "curvature by batch statistics": lambda of: curvature(of, batch_norm="train"),
    "curvature with fresh graphs": lambda of: curvature(of, keep_graphs=False, others=True),
    "curvature in float32": lambda of: curvature(of, dtype=torch.float32),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_measuring_leaves_nothing_behind(net, measure):
    of = case(net)
    of.batches = Noisy(of.batches)
    witness = Witness(of)
    measure(of)
    witness.check()


class Noisy(list):
    """Batches whose reading draws from all three global generators, as a shuffling loader does."""

    def __iter__(self):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        return super().__iter__()


class Stop(Exception):
    pass


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_nothing_is_left_behind_where_the_loss_raises(net, measure):
    of = case(net)
    witness = Witness(of)

    def fails(*_):
        raise Stop

    of.loss = fails
    with pytest.raises(Stop):
        measure(of)
    witness.check()
