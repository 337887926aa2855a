"""Shares of zeros against a forward pass written here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseflow.core import BadValue
from sparseflow.measure import Zeros, activation_zeros, by_stage
from sparseflow.models import MLP, activations, models


class Reusing(nn.Module):
    """One ReLU module behind two layers, with an activation called as a function at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(5, 4), nn.Linear(4, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        return torch.sigmoid(self.relu(self.second(self.relu(self.first(x)))))


def batches():
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 5, generator=draw), torch.zeros(n)) for n in (6, 3)]


def model() -> Reusing:
    made = Reusing()
    draw = torch.Generator().manual_seed(1)
    for p in made.parameters():
        nn.init.normal_(p, generator=draw)
    return made


def test_zeros_are_counted_over_all_examples_and_by_call():
    net = model()
    x = torch.cat([inputs for inputs, _ in batches()])
    first = net.first(x).clamp(min=0)
    second = net.second(first).clamp(min=0)
    found = activation_zeros(net, batches())
    assert found == {
        "relu[0]": Zeros(int((first == 0).sum()), 36),
        "relu[1]": Zeros(int((second == 0).sum()), 27),
    }
    assert found["relu[0]"].share == pytest.approx((first == 0).double().mean().item())
    assert 0.1 < found["relu[0]"].share < 0.9


def test_modules_may_be_named():
    found = activation_zeros(model(), batches(), modules=["second"])
    assert found == {"second": Zeros(0, 27)}


@pytest.mark.parametrize("name", activations.names)
def test_every_activation_of_the_catalog_is_seen(name):
    net = MLP((5,), 3, depth=2, width=7, activation=name)
    found = activation_zeros(net, batches())
    assert all(zeros.values == 9 * 7 for zeros in found.values())
    assert len(found) == 2
    assert (max(z.share for z in found.values()) > 0.1) == (name in ("relu", "relu6"))


def test_layers_are_put_together_by_stage():
    net = models["resnet"]((1, 8, 8), 3, depth=8, width=2)
    found = activation_zeros(
        net, [(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4))]
    )
    stages = sorted({name.split(".")[0] for name in found})
    together = by_stage(found, stages)
    assert sum(z.values for z in together.values()) == sum(z.values for z in found.values())
    assert sum(z.zeros for z in together.values()) == sum(z.zeros for z in found.values())
    with pytest.raises(BadValue, match="no layer is of the stage 'nowhere'"):
        by_stage(found, ["nowhere"])


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(BadValue, match="has no activation modules; name the modules"):
        activation_zeros(nn.Sequential(nn.Linear(5, 3)), batches())
    with pytest.raises(BadValue, match=r"has no module 'third' \(it has: first, second, relu\)"):
        activation_zeros(model(), batches(), modules=["third"])
    with pytest.raises(BadValue, match="no batches"):
        activation_zeros(model(), [])
    idle = model()
    idle.more = nn.ReLU()
    with pytest.raises(BadValue, match="the forward pass does not call more"):
        activation_zeros(idle, batches())
    recurrent = nn.LSTM(5, 2)
    with pytest.raises(BadValue, match="returns tuple, not a tensor"):
        activation_zeros(nn.Sequential(recurrent), batches(), modules=["0"])
    assert not recurrent._forward_hooks
