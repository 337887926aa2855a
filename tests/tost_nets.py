"""Small networks of the zoo, their batches and trainings, for the tests of ghosts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import tost
from sparseflow.models import models
from sparseflow.tost import Fade, GhostNeurons, Ghosts, GhostSkips

SIZES = {"vgg16": 16}


def net(name: str = "resnet", seed: int = 0, **options) -> nn.Module:
    options = options or {"depth": 8, "width": 4}
    size = SIZES.get(name, 8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models[name]((3, size, size), 5, **options)


def batch(step: int, size: int = 8, n: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randn(n, 3, size, size, generator=draw), torch.randint(5, (n,), generator=draw)


def both(model: nn.Module, fade: Fade, x: Tensor, **options) -> tuple[GhostNeurons, GhostSkips]:
    return tost.ghost_neurons_(model, fade, **options), tost.ghost_skips_(model, fade, x, **options)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, ghosts: Sequence[Ghosts], steps: range, size: int = 8
) -> list[float]:
    """The losses of these steps; their number alone says on which batch each is."""
    losses = []
    model.train()
    for step in steps:
        x, y = batch(step, size)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        for one in ghosts:
            one.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def loss_of(model: nn.Module, step: int) -> float:
    """The training loss of the batch of a step."""
    x, y = batch(step)
    return float(F.cross_entropy(model.train()(x), y))


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def skeleton(model: nn.Module) -> list[tuple]:
    """Everything of a model that is not a number."""
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return [
        (name, type(m), *map(list, (vars(m), m._modules, m._buffers, m._parameters, m._non_persistent_buffers_set)))
        for name, m in model.named_modules()
    ]
