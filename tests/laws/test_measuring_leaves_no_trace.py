"""Measuring leaves nothing behind in a model: values, buffers, modes, gradients, hooks and generators stay."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from small_nets import NETS, case
from sparseflow.core import state_digest
from sparseflow.measure import Hessian, activation_zeros, answers, interpolate, landscape
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


def slices(of) -> None:
    first, second = (landscape.random_direction(of.model, number=k) for k in (0, 1))
    landscape.plane(of.model, of.loss, of.batches, first, second, [0, 1], [0, 1])
    landscape.line(of.model, of.loss, of.batches, first, [1], batch_norm="train")


def path(of) -> None:
    state = of.model.state_dict()
    interpolate(of.model, state, state, of.loss, of.batches, [0, 0.5], statistics=of.batches)


def inputs(of) -> None:
    landscape.around_input(of.model, of.loss, of.batches[0], [0, 1], [0, 1])


MEASUREMENTS = {
    "curvature": curvature,
    "curvature by batch statistics": lambda of: curvature(of, batch_norm="train"),
    "curvature with fresh graphs": lambda of: curvature(of, keep_graphs=False, others=True),
    "curvature in float32": lambda of: curvature(of, dtype=torch.float32),
    "slices": slices,
    "path": path,
    "around an input": inputs,
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_measuring_leaves_nothing_behind(net, measure):
    of = case(net)
    of.batches = Noisy(of.batches)
    witness = Witness(of)
    measure(of)
    witness.check()


@pytest.mark.parametrize("net", NETS)
def test_looking_at_answers_and_activations_leaves_nothing_behind(net):
    of = case(net)
    of.batches = Noisy(of.batches)
    state = state_digest(of.model.state_dict())
    hooks = [len(m._forward_hooks) for m in of.model.modules()]
    modes = [m.training for m in of.model.modules()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    answers(of.model, of.batches)
    activation_zeros(of.model, of.batches, ["output" if net != "perceptron" else "1"])
    assert state == state_digest(of.model.state_dict())
    assert hooks == [len(m._forward_hooks) for m in of.model.modules()]
    assert modes == [m.training for m in of.model.modules()]
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


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
