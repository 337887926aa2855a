"""Masked and compact execution are one meaning: the same losses, gradients and weights, step by step and run by run.

Rounding differs between dense and sparse kernels, so the laws are of three kinds: one step from one state agrees to
float tolerance; whole trainings without batch norm stay together; with batch norm and skips, which amplify any
difference, they part no faster than masked execution parts from itself after a change in one weight's last bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparseflow import data
from sparseflow.autodiff import weight_gradients
from sparseflow.core import other_parameters, stand_ins, stream, weight_values
from sparseflow.measure import MEASURES, gradient_flow
from sparseflow.study.build import build, optimizer_for, plan_for
from sparseflow.study.read import validate
from sparseflow.study.spec import RunSpec
from sparseflow.train import Trainer, optimizers

EPOCHS = 5
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prelu": {"activation": "prelu"},
    "BN": {"norm": "batch"},
    "SC": {"skip": True},
    "SC_BN": {"skip": True, "norm": "batch"},
}
every_optimizer = pytest.mark.parametrize("optimizer", optimizers.names)


@cache
def digits(dtype: str) -> data.Prepared:
    return data.prepare(data.load("digits"), dtype=getattr(torch, dtype))


def trainer(execution: str, optimizer: str, model: dict[str, Any], dtype: str = "float64", **sections: Any) -> Trainer:
    """A digits training with dense width 20 in 68, depth 3, learning rate 0.001, without probes."""
    spec = validate(
        RunSpec,
        {
            "model": {"depth": 3, **model},
            "mask": {"twin_width": 20, "execution": execution},
            "optimizer": {"name": optimizer, "lr": 0.001, **sections.pop("settings", {})},
            "train": {"epochs": EPOCHS, "dtype": dtype},
            **sections,
        },
    )
    prepared = digits(dtype)
    network = build(spec, prepared.input_shape, prepared.classes)
    assert set(network.execution.values()) == {execution}
    return Trainer(network.model, network.masks, optimizer_for(spec, network.model), prepared, plan_for(spec))


def synchronise(small: Trainer, masked: Trainer) -> None:
    """Give the compact training the masked one's parameters, buffers and optimiser state."""
    small.model.load_state_dict(masked.model.state_dict())
    pairs = {name: (weight, small.sparse.masks[name]) for name, weight in weight_values(masked.model).items()}
    pairs |= {name: (p, None) for name, p in other_parameters(masked.model).items()}
    ours = weight_values(small.model) | other_parameters(small.model)
    for name, (parameter, mask) in pairs.items():
        small.optimizer.state[ours[name]] = {
            key: value.t()[mask.t()].clone() if mask is not None and value.shape == mask.shape else value.clone()
            for key, value in masked.optimizer.state[parameter].items()
            if value is not None
        }
    small.step, small.epoch = masked.step, masked.epoch


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Largest difference relative to the largest entry."""
    scale = float(expected.abs().max()) or 1.0
    assert float((found - expected).abs().max()) <= tolerance * scale, what


@every_optimizer
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_one_step_from_one_state(dtype, tolerance, network, optimizer):
    """At the start of each epoch of a training in masked execution."""
    settings = {"weight_decay": 1e-3, "l1": 1e-4} if network else {}
    masked, small = (trainer(how, optimizer, network, dtype, settings=settings) for how in ("masked", "compact"))
    for epoch in range(EPOCHS):
        order = torch.randperm(len(masked.data.train), generator=stream(0, "order", epoch)).split(128)[:-1]
        synchronise(small, masked)
        for k, indices in enumerate(order):
            loss = masked.train_step(indices, stream(0))
            if k == 0:
                assert_near(small.train_step(indices, stream(0)), loss, tolerance, "loss")
                compare_step(masked, small, tolerance)


def compare_step(masked: Trainer, small: Trainer, tolerance: float) -> None:
    ours, state = small.model.state_dict(), masked.model.state_dict()
    assert ours.keys() == state.keys()
    for name, value in state.items():
        assert_near(ours[name].double(), value.double(), tolerance, name)
    for name, values in weight_values(small.model).items():
        mask = masked.sparse.masks[name]
        dense = masked.model.get_parameter(name)
        assert_near(values.grad, dense.grad.t()[mask.t()], tolerance, f"gradient of {name}")
        assert not dense.grad[~mask].any()
        assert not state[name][~mask].any()
        assert not ours[name][~mask].any()
    for name, p in other_parameters(small.model).items():
        assert_near(p.grad, masked.model.get_parameter(name).grad, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("execution", ["masked", "compact"])
def test_one_step_of_sgd_by_definition(execution):
    """w' = w - lr (g + l2 w + l1 sign w) on active weights; other parameters decay but have no L1 penalty."""
    lr, l2, l1 = 0.01, 0.03, 0.002
    settings = {"lr": lr, "weight_decay": l2, "l1": l1}
    run = trainer(execution, "sgd", {"norm": "layer", "activation": "prelu"}, settings=settings)
    indices = torch.arange(64)
    x, y = run.data.batch(run.data.train, indices)
    parameters = list(run.model.parameters())
    before = [p.detach().clone() for p in parameters]
    weights = {id(p) for p in weight_values(run.model).values()}
    loss = F.cross_entropy(run.model(x), y)
    gradients = torch.autograd.grad(loss, parameters)
    offs = {id(run.model.get_parameter(n)): ~m for n, m in run.sparse.masks.items()} if execution == "masked" else {}
    # Without the penalties.
    assert run.train_step(indices, stream(0)).item() == pytest.approx(loss.item(), rel=1e-14)
    for p, old, g in zip(parameters, before, gradients, strict=True):
        step = g + l2 * old + (l1 * old.sign() if id(p) in weights else 0)
        expected = (old - lr * step).masked_fill(offs.get(id(p), torch.tensor(False)), 0)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-14)


def test_the_training_loss_is_the_mean_over_the_examples_seen():
    """13 examples in batches of 4: the last one alone is left out (no batch statistics), of steps and mean alike."""
    spec = validate(
        RunSpec,
        {"train": {"batch_size": 4, "epochs": 1, "dtype": "float64"}, "optimizer": {"name": "sgd", "lr": 1e-300}},
    )
    prepared = data.prepare(data.load("digits"), train_limit=13, dtype=torch.float64)
    network = build(spec, prepared.input_shape, prepared.classes)
    run = Trainer(network.model, {}, optimizer_for(spec, network.model), prepared, plan_for(spec))
    seen = []
    step = run.train_step
    run.train_step = lambda indices, draws: seen.append(step(indices, draws)) or seen[-1]
    assert run.run().examples == 12
    assert len(seen) == 3
    assert run.final["train_loss"] == pytest.approx(sum(seen).item() / 3, rel=1e-12)


@every_optimizer
def test_a_step_moves_the_weights_at_all(optimizer):
    """Else the law above would hold for two executions that do nothing."""
    for how in ("masked", "compact"):
        run = trainer(how, optimizer, {})
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        run.train_step(torch.arange(128), stream(0))
        for name, value in run.model.state_dict().items():
            moved = (value != before[name])[run.sparse.masks[name]]
            assert moved.double().mean() > 0.5


def finished(execution: str, optimizer: str, network: dict[str, Any], nudge: bool = False, **sections: Any) -> Trainer:
    """A whole training; `nudge` first moves the first active weight by one unit in its last place."""
    run = trainer(execution, optimizer, network, **sections)
    if nudge:
        name, weight = next(iter(weight_values(run.model).items()))
        row, column = run.sparse.masks[name].nonzero()[0].tolist()
        with torch.no_grad():
            weight[row, column] = float(np.nextafter(weight[row, column].item(), np.inf))
    outcome = run.run()
    assert outcome.status == "finished"
    return run


def distance(a: Trainer, b: Trainer) -> float:
    """Largest difference of any parameter or running statistic, relative to the largest entry of its tensor."""
    first, second = a.model.state_dict(), b.model.state_dict()
    return max(
        float((first[name].double() - second[name].double()).abs().max() / first[name].double().abs().max())
        for name in first
    )


@every_optimizer
@pytest.mark.parametrize(
    ("network", "sections"),
    [
        ({}, {}),
        ({"activation": "swish", "dropout": 0.2}, {"settings": {"weight_decay": 1e-4, "l1": 1e-5}}),
        ({"norm": "layer"}, {"data": {"augment": True}}),
    ],
    ids=["NR", "L2_L1_DO", "LN_DA"],
)
def test_trainings_without_batch_norm_stay_together(network, sections, optimizer):
    masked = finished("masked", optimizer, network, **sections)
    small = finished("compact", optimizer, network, **sections)
    assert distance(masked, small) < 1e-9
    assert masked.final.keys() == small.final.keys()
    for name, value in masked.final.items():
        assert small.final[name] == pytest.approx(value, rel=1e-9), name
    assert len(stand_ins(small.model)) == 4


@every_optimizer
@pytest.mark.parametrize("name", ["BN", "SC", "SC_BN"])
def test_executions_part_no_faster_than_one_parts_from_itself(name, optimizer):
    """Ten times the divergence after one nudge of the first weight by its last bit, over the same training."""
    masked = finished("masked", optimizer, NETWORKS[name])
    small = finished("compact", optimizer, NETWORKS[name])
    nudged = finished("masked", optimizer, NETWORKS[name], nudge=True)
    # One nudge in one weight is at times absorbed altogether; rounding at every step never is.
    assert distance(masked, small) <= 10 * max(distance(masked, nudged), 2.0**-52)


def test_the_measure_of_divergence_sees_another_training():
    """Another dropout rate or weight decay is far outside of what the laws above allow."""
    masked = finished("masked", "momentum", {})
    other = finished("compact", "momentum", {}, settings={"weight_decay": 1e-6})
    assert distance(masked, other) > 1e-9


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_measurements_agree_along_a_training(network):
    """Dense gradients at every position, and gradient flow, after each epoch."""
    masked, small = (trainer(how, "momentum", network) for how in ("masked", "compact"))
    batch = masked.data.batch(masked.data.train, torch.arange(200))
    names = list(masked.sparse.masks)
    for epoch in range(3):
        for indices in torch.randperm(1400, generator=stream(1, epoch)).split(128):
            masked.train_step(indices, stream(0))
        synchronise(small, masked)
        expected = weight_gradients(masked.model, F.cross_entropy, batch, names)
        found = weight_gradients(small.model, F.cross_entropy, batch, names)
        for name in names:
            assert_near(found[name], expected[name], 1e-10, name)
            assert expected[name][~masked.sparse.masks[name]].any()
        flows = [gradient_flow(run.model, F.cross_entropy, [batch], run.sparse.masks) for run in (masked, small)]
        for measure in MEASURES:
            assert getattr(flows[0], measure) == pytest.approx(getattr(flows[1], measure), rel=1e-10)


@pytest.mark.parametrize("implementation", ["plain", "foreach", "fused"])
def test_every_implementation_of_an_optimiser(implementation):
    settings = {"implementation": implementation, "weight_decay": 1e-3}
    runs = [finished(how, "adam", {}, settings=settings) for how in ("masked", "compact")]
    assert distance(*runs) < 1e-9
