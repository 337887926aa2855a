"""A `Trainer` takes ghosts along: it steps them, saves them, and goes on with them bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseflow import data, tost
from sparseflow.core import BadValue, weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.models import models
from sparseflow.tost import Fade, Ghosts
from sparseflow.train import Plan, Stack, Trainer, make_schedule

EPOCHS, PER_EPOCH = 4, 3
PLAN = Plan(
    EPOCHS,
    16,
    schedule=lambda total, per_epoch: make_schedule("step", total, per_epoch, milestones=(2,)),
)


def training(
    folder: Path | None = None, should_stop: Callable[[], bool] = lambda: False, *, ghosts: bool = True, **options
) -> Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models["resnet"]((1, 8, 8), 10, depth=8, width=4)
    prepared = data.prepare(data.load("digits"), train_limit=48)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, uniform(shapes, 0.5), seed=1)
    companions: tuple[Ghosts, ...] = ()
    if ghosts:
        x = prepared.batch(prepared.train, torch.arange(4))[0]
        skips = tost.ghost_skips_(
            model, tost.until(2, PER_EPOCH, epochs=EPOCHS), x, shortcut=options.pop("shortcut", "pool"), probe=x
        )
        companions = tost.ghost_neurons_(model, Fade("cosine", 8), probe=x), skips
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    path = None if folder is None else folder / "checkpoint.pt"
    return Trainer(
        model, masks, optimizer, prepared, PLAN, companions=companions, save_to=path, should_stop=should_stop, **options
    )


def bits(trainer: Trainer) -> list:
    return [{k: v.tolist() for k, v in trainer.model.state_dict().items()}, trainer.history.rows]


def test_ghosts_fade_by_the_trainers_steps_and_are_gone_at_the_first_decay():
    seen = []
    trainer = training()
    neurons, skips = trainer.companions
    trainer.at_steps = {k: lambda: seen.append((trainer.step, skips.alpha, neurons.alpha)) for k in range(13)}
    outcome = trainer.run()
    assert outcome.status == "finished"
    assert trainer.batches_per_epoch == PER_EPOCH
    assert [alpha for _, alpha, _ in seen] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, *[0] * 7])
    assert [alpha for _, _, alpha in seen] == [Fade("cosine", 8)(step) for step in range(13)]
    assert [trainer.rate(step) for step in (5, 6)] == [1.0, 0.1]
    assert skips.fade.end == 6
    assert neurons.finished
    assert skips.finished
    assert skips.largest_change == 0.0
    plain = training(ghosts=False)
    assert plain.run().final["train_loss"] != outcome.final["train_loss"]
    assert [type(m) for m in trainer.model.modules()] == [type(m) for m in plain.model.modules()]


@pytest.mark.parametrize("shortcut", ["pool", "conv"])
@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_a_stopped_training_goes_on_with_its_ghosts(tmp_path, epochs_before, shortcut):
    unbroken = training(shortcut=shortcut)
    unbroken.run()
    first = training(tmp_path, lambda: first.epoch == epochs_before, shortcut=shortcut)
    assert first.run().status == "stopped"
    second = training(tmp_path, shortcut=shortcut)
    assert second.resume() == "resumed"
    assert [g.finished for g in second.companions] == [g.finished for g in first.companions]
    assert second.run().status == "finished"
    assert bits(second) == bits(unbroken)
    assert second.companions[0].largest_change == unbroken.companions[0].largest_change


def test_a_training_that_starts_late_has_faded_ghosts():
    trainer = training(start_step=4)
    assert [g.steps for g in trainer.companions] == [4, 4]
    assert trainer.companions[1].alpha == pytest.approx(0.2)
    assert [g.finished for g in training(start_step=7).companions] == [False, True]


def test_a_stack_refuses_ghosts():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    prepared = data.prepare(data.load("digits"), train_limit=48)

    class Idle:
        def step(self) -> None: ...

    trainer = Trainer(model, {}, torch.optim.SGD(model.parameters()), prepared, Plan(1), companions=(Idle(),))
    with pytest.raises(BadValue, match="such as ghosts, has no stacked form"):
        Stack([trainer])
