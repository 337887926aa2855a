"""Dead units against brute force: every unit looked at, and pushed, on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparseflow.core import BadValue, stream
from sparseflow.masks import effective, prune
from sparseflow.measure import outputs_and_shares

PUSH = 1e-7
"""Small enough that no unit that is closed opens, in float64."""


class Net(nn.Module):
    """Two convolutions and two linear layers, activations as functions; `push` adds to one unit of one layer."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 6, 3, padding=1)
        self.c, self.d = nn.Linear(6 * 4, 9), nn.Linear(9, 3)
        self.inplace = inplace
        self.seen: list[torch.Tensor] = []

    def forward(self, x, push=(-1, -1)):
        self.seen = []
        for k, layer in enumerate((self.a, self.b, self.c, self.d)):
            x = layer(x if k < 2 else x.flatten(1))
            if push[0] == k:
                x = x.clone()
                x[:, push[1]] += PUSH
            self.seen.append(x.detach().clone())
            x = F.max_pool2d(F.relu(x, self.inplace), 2) if k == 1 else F.relu(x, self.inplace) if k < 3 else x
        return x


def masked_net(seed: int, density: float, inplace: bool = False) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(inplace).double()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
        nn.init.normal_(net.c.bias, mean=-1.0)  # closes some units for all inputs
    with torch.no_grad():
        for name, mask in prune(net, "random", density, seed=seed).items():
            net.get_parameter(name).mul_(mask)
    return net


def by_force(net: Net, x: torch.Tensor) -> tuple[int, int, int]:
    """(unreached, dead, all) units: unreached do not differ between inputs, dead change no output when pushed."""
    plain = net(x).detach()
    unreached = dead = units = 0
    for k, given in enumerate(net.seen):
        for unit in range(given.shape[1]):
            own = given[:, unit].flatten(1) if given.dim() > 2 else given[:, unit : unit + 1]
            still = bool(((own - own[0]).abs() < 1e-13).all())
            idle = torch.equal(net(x, (k, unit)).detach(), plain)
            unreached, dead, units = unreached + still, dead + (still or idle), units + 1
    return unreached, dead, units


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("density", [0.08, 0.2, 0.5, 1.0])
def test_every_unit_by_force(density, inplace):
    x = torch.randn(20, 1, 6, 6, generator=stream(0, "x"), dtype=torch.float64)
    both = 0
    for seed in range(6):
        net = masked_net(seed, density, inplace)
        out, shares = outputs_and_shares(net, x)
        unreached, dead, units = by_force(net, x)
        assert units == 5 + 6 + 9 + 3
        assert (shares.unreached, shares.dead) == pytest.approx((unreached / units, dead / units)), seed
        assert torch.equal(out, net(x).detach())
        both += 0 < unreached < dead
    assert both >= 3 or density >= 0.5  # the cases hold units of both kinds


def test_what_has_no_path_is_dead():
    """In float32, where convolutions may leave a rest of rounding; weights are positive, so that every ReLU is open."""
    for seed in range(6):
        net = masked_net(seed, 0.15)
        masks = prune(net, "random", 0.15, seed=seed)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.abs_() if parameter.dim() > 1 else parameter.fill_(50.0)
        paths = effective(net, masks, (1, 6, 6)).layers
        x = torch.randn(20, 1, 6, 6, generator=stream(0, "x"))
        _, shares = outputs_and_shares(net.float(), x)
        assert shares.unreached * 23 == pytest.approx(sum(layer.dead for layer in paths))
        # Of a window of equal values a maximum passes one on, so a unit that only reaches others is not always heard.
        assert shares.dead * 23 >= sum(layer.dead + layer.unreachable for layer in paths) - 1e-9


def test_a_layer_that_is_used_twice_has_its_units_once():
    net = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]))
    x = torch.randn(7, 4, generator=stream(0, "x"), dtype=torch.float64)

    class Twice(nn.Module):
        def forward(self, x):
            return net(net(x))[:, :2]

    _, shares = outputs_and_shares(Twice(), x)
    # Rows 0 and 1 pass through both; row 2 gives nothing; row 3 is reached at first, and nothing reads it.
    assert shares == pytest.approx((1 / 4, 2 / 4))


class Odd(nn.Module):
    """A linear layer, and something done to what it gives."""

    def __init__(self, give):
        super().__init__()
        self.linear, self.give = nn.Linear(3, 3), give

    def forward(self, x):
        return self.give(self.linear(x))


@pytest.mark.parametrize(
    "give", [lambda out: torch.cat([out, -out], 1), lambda out: out - out.flip(0), lambda out: out.softmax(1)]
)
def test_outputs_whose_sum_is_constant_are_not_dead(give):
    x = torch.randn(8, 3, generator=stream(0, "x"), dtype=torch.float64)
    assert outputs_and_shares(Odd(give).double(), x)[1].dead == 0


def test_a_model_without_layers_has_no_shares():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 4))

        def forward(self, x):
            return x @ self.weight

    out, shares = outputs_and_shares(Product(), torch.ones(2, 3))
    assert torch.equal(out, torch.full((2, 4), 3.0))
    assert np.isnan(shares).all()


@pytest.mark.parametrize(
    ("give", "got"),
    [
        (lambda out: (out, out), "tuple"),
        (lambda out: out.sum(), "shape ()"),
        (lambda out: out.argmax(1), "int64"),
        (lambda out: out[:1], "shape (1, 3)"),
    ],
)
def test_outputs_of_another_kind_are_refused(give, got):
    with pytest.raises(BadValue, match="row for each of its inputs") as error:
        outputs_and_shares(Odd(give), torch.ones(4, 3))
    assert got in str(error.value)
    with pytest.raises(BadValue, match=r"does not take normal inputs of shape \(5,\)"):
        outputs_and_shares(Odd(give), torch.ones(4, 5))
