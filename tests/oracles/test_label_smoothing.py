"""Label smoothing by the paper's formula, and in a training's own loss alone."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparseflow import data
from sparseflow.core import BadValue
from sparseflow.train import Plan, Stack, Trainer, evaluate, smoothed


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.35])
def test_it_is_the_papers_and_torchs_own(alpha):
    """003 sec. 2.3: y_LS = y (1 - alpha) + alpha / K."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    y = torch.randint(5, (7,), generator=draw)
    labels = F.one_hot(y, 5) * (1 - alpha) + alpha / 5
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    by_hand = -(labels * p.log()).sum(1).mean()
    loss = smoothed(alpha)(logits, y)
    torch.testing.assert_close(loss, by_hand)
    assert torch.equal(loss, F.cross_entropy(logits, y, label_smoothing=alpha))
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], (p - labels) / 7)
    assert torch.equal(pickle.loads(pickle.dumps(smoothed(alpha)))(logits, y), loss)


def test_the_papers_alpha_is_the_default():
    assert smoothed().keywords == {"label_smoothing": 0.1}


@pytest.mark.parametrize("alpha", [-0.01, 1.0, 1.5, float("nan")])
def test_bad_alphas(alpha):
    with pytest.raises(BadValue, match=r"label smoothing must be in \[0, 1\)"):
        smoothed(alpha)


def training(plan: Plan) -> Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    prepared = data.prepare(data.load("digits"), train_limit=60)
    return Trainer(model, {}, torch.optim.SGD(model.parameters(), lr=0.1), prepared, plan)


def test_evaluation_never_sees_it():
    plan = Plan(2, 20)
    hard, soft = training(plan), training(dataclasses.replace(plan, training_loss=smoothed(0.5)))
    for trainer in (hard, soft):
        assert trainer.run().status == "finished"
        expected = evaluate(trainer.model, trainer.data, trainer.data.test, F.cross_entropy)
        assert (trainer.final["test_loss"], trainer.final["test_accuracy"]) == expected
    assert hard.final["train_loss"] < soft.final["train_loss"] - 0.1
    assert hard.final["test_loss"] != soft.final["test_loss"]  # of other weights


def test_the_step_is_that_of_the_smoothed_loss():
    plan = Plan(1, 20, training_loss=smoothed(0.3))
    trainer, by_hand = training(plan), training(plan)
    indices = torch.arange(20)
    returned = trainer.train_step(indices, torch.Generator())
    x, y = by_hand.inputs(indices, torch.Generator())
    loss = F.cross_entropy(by_hand.model(x), y, label_smoothing=0.3)
    loss.backward()
    by_hand.optimizer.step()
    assert torch.equal(returned, loss.detach())
    for a, b in zip(trainer.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_stack_refuses_it():
    plan = Plan(1, 20)
    with pytest.raises(BadValue, match="only the cross entropy has a stacked form"):
        Stack([training(plan), training(dataclasses.replace(plan, training_loss=smoothed()))])
