"""Signal propagation: draws are functions of what names them, leave nothing behind, and every option matters."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparseflow import compact
from sparseflow.core import BadValue, SparseflowError, UnknownName, state_digest
from sparseflow.init import Scheme, initialisations
from sparseflow.masks import random_masks
from sparseflow.measure import DENSE, Key, Propagation, signal_propagation
from sparseflow.models import models


class Net(nn.Module):
    """A convolution, batch norm, dropout, two linear layers; draws from torch's generator while it runs."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.hidden, self.output = nn.Dropout(0.5), nn.Linear(24, 12), nn.Linear(12, 5)
        self.noise = noise

    def forward(self, x):
        h = self.norm(self.conv(x)).relu().flatten(1)
        return self.output(self.drop(self.hidden(h).relu())) + self.noise * torch.randn(len(x), 5)


def net(noise: float = 0.0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(noise)


SHAPE = (1, 4, 4)
KEYS = [Key(method, density, number) for method in ("fans", "liu") for density in (1.0, 0.3) for number in (0, 1)]


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    first, second = (Propagation(net(noise=1.0), SHAPE, probes=16) for _ in range(2))
    forth = {key: first.draw(key) for key in KEYS}
    with torch.random.fork_rng():
        torch.manual_seed(99)
        back = {key: second.draw(key) for key in reversed(KEYS)}
    assert forth == back
    # With all weights, fans and Liu's are the same to rounding.
    assert len({round(draw.deviation, 6) for draw in forth.values()}) == 6
    again = signal_propagation(net(noise=1.0), SHAPE, [0.3], ["liu"], draws=2, probes=16)
    assert [(p.initialisation, p.density) for p in again] == [DENSE, ("liu", 0.3)]
    assert list(again[1].draws) == [forth["liu", 0.3, k] for k in (0, 1)]


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_model_and_generators_stay_as_they_are(batch_norm):
    model = net(noise=1.0).train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.hidden.weight.grad = torch.ones_like(model.hidden.weight)
    modes = [module.training for module in model.modules()]
    values, memory = state_digest(model.state_dict()), [p.data_ptr() for p in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    signal_propagation(model, SHAPE, [0.5], draws=2, probes=8, batch_norm=batch_norm)
    assert state_digest(model.state_dict()) == values
    assert [p.data_ptr() for p in model.parameters()] == memory
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 7]
    assert torch.equal(model.hidden.weight.grad, torch.ones_like(model.hidden.weight))
    assert all(p.grad is None for p in model.parameters() if p is not model.hidden.weight)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == generators[1:]  # noqa: NPY002


@pytest.mark.parametrize(
    "settings",
    [
        {"probes": 17},
        {"seed": 1},
        {"budget": "erk"},
        {"dense": "conv"},
        {"scheme": Scheme("glorot")},
        {"scheme": Scheme(distribution="uniform")},
        {"scheme": Scheme(fan="out")},
        {"batch_norm": "eval"},
    ],
    ids=str,
)
def test_every_setting_changes_the_outputs(settings):
    key = Key("liu", 0.3, 0)
    plain, other = (Propagation(net(), SHAPE, **{"probes": 16, **more}).draw(key) for more in ({}, settings))
    assert plain.deviation != other.deviation


def test_key_changes_the_outputs_and_the_smallest_fan_in():
    field = Propagation(net(), SHAPE, probes=16)
    found = {key: field.draw(key).deviation for key in (Key(m, 0.3, k) for m in initialisations.names for k in (0, 1))}
    assert len(set(found.values())) == len(found)
    assert [field.draw(Key("fans", d, 0)).fan_in for d in (1.0, 0.02)] == [9, 0]


def test_progress_and_order():
    told: list[tuple[int, int]] = []
    found = signal_propagation(
        net(), SHAPE, [0.2, 1.0, 0.5, 0.2], ["liu", "dense"], draws=2, probes=4, progress=lambda *now: told.append(now)
    )
    wanted = [("dense", 1.0), ("liu", 1.0), ("liu", 0.5), ("dense", 0.5), ("liu", 0.2), ("dense", 0.2)]
    assert [(p.initialisation, p.density) for p in found] == wanted
    assert told == [(k, 12) for k in range(1, 13)]


def test_a_network_of_the_catalog_and_float64():
    model = models["resnet"]((3, 8, 8), 10, depth=8).double()
    found = signal_propagation(model, (3, 8, 8), [0.2], ["fans"], draws=2, probes=8)
    assert 0.1 < found[1].rms / found[0].rms < 10
    assert found[0].unreached == 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"densities": [1.5]}, BadValue, r"density must be in \(0, 1\], got 1.5"),
        ({"densities": [0.0]}, BadValue, r"density must be in \(0, 1\], got 0"),
        ({"densities": []}, BadValue, "at least one density"),
        ({"methods": ["lui"]}, UnknownName, "did you mean 'liu'"),
        ({"draws": 1}, BadValue, "draws must be at least 2"),
        ({"probes": 1}, BadValue, "probes must be at least 2"),
        ({"budget": "uniformly"}, UnknownName, "did you mean 'uniform'"),
        ({"budget": "vector"}, BadValue, "needs one density for each of 3 layers"),
        ({"dense": "first"}, BadValue, "dense: 'first' matches no weight"),
        ({"budget": "erk", "dense": "hidden", "densities": [0.1]}, BadValue, "dense|density"),
        ({"batch_norm": "both"}, BadValue, "batch_norm must be 'train' or 'eval'"),
        ({"input_shape": (1, 5, 5)}, BadValue, r"does not take normal inputs of shape \(1, 5, 5\)"),
    ],
    ids=str,
)
def test_mistakes_are_named(arguments, error, words):
    given = {"input_shape": SHAPE, "densities": [0.5], "draws": 2, "probes": 4, **arguments}
    with pytest.raises(error, match=words):
        signal_propagation(net(), **given)


def test_models_without_masks_are_refused():
    with pytest.raises(SparseflowError, match="no weight to prune"):
        Propagation(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), (4,))
    model = nn.Sequential(nn.Linear(6, 5))
    compact(model, random_masks({"0.weight": torch.Size((5, 6))}, {"0.weight": 4}, 0))
    with pytest.raises(BadValue, match="is compact"):
        Propagation(model, (6,))


def test_the_page_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "signal.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(code.replace("draws=100", "draws=2"), {"model": nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3))})
    said = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert said == [["dense", "1.0"], ["liu", "0.5"], ["fans", "0.5"], ["liu", "0.1"], ["fans", "0.1"]]
