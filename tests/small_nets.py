"""Small networks of every kind that pruning must take, in float64, each with batches and a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import Batch, Loss


@dataclass
class Case:
    """A network in training mode, two batches of unequal size, and the mean loss over a batch."""

    model: nn.Module
    batches: list[Batch]
    loss: Loss = F.cross_entropy

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.dim() >= 2}


@contextmanager
def drawn(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Residual(nn.Module):
    """A convolution, batch norm, a residual block, batch norm, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first_norm(self.first(x)))
        x = F.silu(self.second_norm(self.second(x)) + x)
        return self.output(x.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.output = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    """A transformer's encoder layer with dropout, whose mean output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.output = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layer(x).mean(1))


def perceptron() -> nn.Module:
    """With biases and no normalisation: its loss is a smooth function of its weights."""
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


_MAKERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (6,)),
    "residual": (Residual, (2, 5, 5)),
    "lstm": (Recurrent, (4, 3)),
    "transformer": (Attending, (4, 8)),
}

NETS = list(_MAKERS)


def case(name: str, seed: int = 0) -> Case:
    """The named network with drawn weights, and 7 + 4 drawn examples of three classes."""
    make, shape = _MAKERS[name]
    with drawn(seed):
        model = make().double()
        for parameter in model.parameters():
            if parameter.dim() < 2:
                nn.init.normal_(parameter, std=0.5)
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        batches = [(torch.randn(n, *shape, dtype=torch.float64), torch.arange(n) % 3) for n in (7, 4)]
    return Case(model, batches)
