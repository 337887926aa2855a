"""Tiny networks with masks whose active Hessian is written down here, entry by entry, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from by_hand import dense_hessian, flat
from small_nets import Case, drawn, perceptron
from sparseflow.core import weight_shapes
from sparseflow.masks import count, random_masks


class Convolving(nn.Module):
    """Two convolutions, the second strided, and a linear layer; biases, no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 2, stride=2)
        self.output = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


class Normalised(nn.Module):
    """Two convolutions with batch norm, the second with a skip connection, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 3, 2, bias=False), nn.BatchNorm2d(3)
        self.second, self.second_norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, affine=False)
        self.output = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first_norm(self.first(x)))
        x = F.silu(self.second_norm(self.second(x)) + x)
        return self.output(x.mean((2, 3)))


class Tied(nn.Module):
    """One square matrix used twice, between two layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.again = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.middle.weight
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.middle, self.again):
            x = torch.tanh(layer(x))
        return self.output(x)


_SHAPES = {"mlp": (6,), "conv": (2, 5, 5), "norm": (1, 4, 4), "tied": (6,), "masked": (6,)}
_MAKERS = {"mlp": perceptron, "conv": Convolving, "norm": Normalised, "tied": Tied, "masked": perceptron}
NETS = list(_MAKERS)


@dataclass
class Curved:
    """A network, and where its active weights are."""

    case: Case
    masks: dict[str, Tensor]

    @property
    def model(self) -> nn.Module:
        return self.case.model

    @property
    def batches(self):
        return self.case.batches

    @property
    def arguments(self):
        return self.model, self.case.loss, self.batches, self.masks


def curved(name: str, seed: int = 0, density: float | None = None) -> Curved:
    """The named network, masked where it is called so or a density is given; its weights are 0 outside of the masks."""
    with drawn(seed):
        model = _MAKERS[name]().double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.6)
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        batches = [(torch.randn(n, *_SHAPES[name], dtype=torch.float64), torch.arange(n) % 3) for n in (7, 4)]
    density = 0.4 if name == "masked" and density is None else density
    masks = {}
    if density is not None:
        shapes = {n: p.shape for n, p in model.named_parameters() if p.dim() >= 2}
        masks = random_masks(shapes, count("uniform", shapes, density), seed=seed)
    with torch.no_grad():
        for weight, mask in masks.items():
            model.get_parameter(weight).mul_(mask)
    assert set(masks) <= set(weight_shapes(model))
    return Curved(Case(model, batches, F.cross_entropy), masks)


def active_hessian(of: Curved, *, training: bool = False, others: bool = False) -> Tensor:
    """The dense Hessian of the weights (then the other parameters), its rows and columns of masked ones left out.

    A tied parameter occurs once, and the forward pass reads it in both places.
    """
    parameters = dict(of.model.named_parameters())
    names = [n for n, p in parameters.items() if p.dim() >= 2]
    names += [n for n, p in parameters.items() if p.dim() < 2] if others else []
    weights = {n: parameters[n].detach().clone() for n in names}
    active = flat({n: of.masks.get(n, torch.ones_like(w, dtype=torch.bool)) for n, w in weights.items()})
    whole = dense_hessian(_loss(of, training), weights)
    return whole[active][:, active]


def _loss(of: Curved, training: bool):
    model = of.model
    examples = sum(len(y) for _, y in of.batches)

    def value(weights):
        found = torch.zeros((), dtype=torch.float64)
        for x, y in of.batches:
            buffers = {n: b.clone() for n, b in model.named_buffers()}
            before = model.training
            model.train(training)
            out = torch.func.functional_call(model, {**weights, **buffers}, (x,))
            model.train(before)
            found = found + len(y) / examples * of.case.loss(out, y)
        return found

    return value
