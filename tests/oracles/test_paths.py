"""Effective paths against a search through the network's graph, written out node by node."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sparseflow.core import BadValue, weight_shapes
from sparseflow.masks import effective, random_masks
from sparseflow.models import MLP, ResNet, models


class Graph:
    """Nodes are values of the network for one example; an edge may carry the weight entry that it is made by."""

    def __init__(self) -> None:
        self.edges: list[tuple[int, int, tuple | None]] = []
        self.units: dict[str, np.ndarray] = {}
        self.count = 0

    def nodes(self, *shape: int) -> np.ndarray:
        made = np.arange(self.count, self.count + int(np.prod(shape))).reshape(shape)
        self.count += made.size
        return made

    def linear(self, x, name, mask):
        out = self.nodes(len(mask))
        self.edges += [(x[i], out[o], (name, o, i)) for o, i in np.argwhere(mask)]
        self.units[name] = out[:, None]
        return out

    def conv(self, x, name, mask, stride=1, padding=0, groups=1):
        (channels, height, width), (outs, _, kernel, _) = x.shape, mask.shape
        sides = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
        out = self.nodes(outs, *sides)
        for o, i, a, b in np.argwhere(mask):
            for u, v in np.ndindex(*sides):
                r, c = u * stride + a - padding, v * stride + b - padding
                if 0 <= r < height and 0 <= c < width:
                    source = x[o // (outs // groups) * (channels // groups) + i, r, c]
                    self.edges.append((source, out[o, u, v], (name, o, i, a, b)))
        self.units[name] = out.reshape(outs, -1)
        return out

    def join(self, *parts):
        """Sums (and windows of pooling): what any of the parts reaches."""
        out = self.nodes(*parts[0].shape)
        self.edges += [(s, t, None) for p in parts for s, t in zip(p.flat, out.flat, strict=True)]
        return out

    def pool(self, x, size):
        return self.join(*(x[:, a::size, b::size] for a in range(size) for b in range(size)))

    def collapse(self, x):
        return self.join(*(x[:, a, b] for a, b in np.ndindex(*x.shape[1:])))

    def solve(self, source, target):
        """(set of effective entries, name -> (units, dead, unreachable))."""
        from_source = self._search(source, forward=True)
        to_target = self._search(target, forward=False)
        used = {key for s, t, key in self.edges if key is not None and s in from_source and t in to_target}
        counts = {}
        for name, units in self.units.items():
            dead = sum(not from_source & set(unit) for unit in units)
            through = sum(bool(from_source & to_target & set(unit)) for unit in units)
            counts[name] = (len(units), dead, len(units) - dead - through)
        return used, counts

    def _search(self, start, *, forward):
        following = defaultdict(list)
        for s, t, _ in self.edges:
            following[s if forward else t].append(t if forward else s)
        seen, waiting = set(), list(start.flat)
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += following[node]
        return seen


def check(model, masks, input_shape, graph, source, target):
    used, counts = graph.solve(source, target)
    paths = effective(model, masks, input_shape)
    found = {(name, *map(int, at)) for name, mask in paths.masks.items() for at in mask.nonzero()}
    assert found == used
    for layer in paths.layers:
        assert (layer.units, layer.dead, layer.unreachable) == counts[layer.name], layer.name
        assert layer.effective == sum(key[0] == layer.name for key in used)
        assert layer.collapsed == (layer.effective == 0)
        if layer.name in masks:
            assert layer.active == int(masks[layer.name].sum())


def drawn(model, density, seed):
    shapes = weight_shapes(model)
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=draw) < density for name, shape in shapes.items()}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=6),
    density=st.sampled_from([0.1, 0.2, 0.4, 0.8]),
    seed=st.integers(0, 10**6),
    norm=st.sampled_from([None, nn.BatchNorm1d, nn.LayerNorm]),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.PReLU, nn.GELU, nn.Sigmoid]),
)
def test_perceptrons(sizes, density, seed, norm, activation):
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), *([norm(b)] if norm else []), activation()]
    model = nn.Sequential(*parts)
    masks = drawn(model, density, seed)
    graph = Graph()
    source = x = graph.nodes(sizes[0])
    for name, mask in masks.items():
        x = graph.linear(x, name, mask.numpy())
    check(model, masks, (sizes[0],), graph, source, x)


@settings(max_examples=20, deadline=None)
@given(density=st.sampled_from([0.05, 0.1, 0.25, 0.6]), seed=st.integers(0, 10**6), depth=st.integers(3, 6))
def test_perceptrons_with_skips(density, seed, depth):
    model = MLP((5,), 3, depth=depth, width=6, skip=True, norm="batch", activation="srelu")
    masks = drawn(model, density, seed)
    graph = Graph()
    source = x = graph.nodes(5)
    carried = None
    for k in range(1, depth + 1):
        name = f"linears.{k - 1}.weight"
        x = graph.linear(x, name, masks[name].numpy())
        if k % 2:
            x = graph.join(x, carried) if carried is not None else x
            carried = x
    out = graph.linear(x, "output.weight", masks["output.weight"].numpy())
    check(model, masks, (5,), graph, source, out)


@settings(max_examples=12, deadline=None)
@given(density=st.sampled_from([0.02, 0.05, 0.15, 0.4]), seed=st.integers(0, 10**6), shortcut=st.sampled_from("pc"))
def test_residual_networks(density, seed, shortcut):
    """Strided convolutions, shortcuts that pad channels, projections, global pooling."""
    model = ResNet((2, 6, 6), 3, depth=8, width=2, shortcut={"p": "pad", "c": "conv"}[shortcut])
    masks = drawn(model, density, seed)
    graph = Graph()
    source = graph.nodes(2, 6, 6)
    numpy = {name: mask.numpy() for name, mask in masks.items()}
    x = graph.conv(source, "first.weight", numpy["first.weight"], padding=1)
    for k, block in enumerate(model.blocks):
        name, stride = f"blocks.{k}", block.stride
        h = graph.conv(x, f"{name}.first.weight", numpy[f"{name}.first.weight"], stride, 1)
        h = graph.conv(h, f"{name}.second.weight", numpy[f"{name}.second.weight"], 1, 1)
        if block.projection is not None:
            key = f"{name}.projection.0.weight"
            x = graph.join(h, graph.conv(x, key, numpy[key], stride))
        else:
            short = x[:, ::stride, ::stride]
            low = block.added // 2
            joined = graph.join(h)
            inside = joined[low : low + len(short)]
            graph.edges += [(s, t, None) for s, t in zip(short.flat, inside.flat, strict=True)]
            x = joined
    out = graph.linear(graph.collapse(x), "output.weight", numpy["output.weight"])
    check(model, masks, (2, 6, 6), graph, source, out)


class Written(nn.Module):
    """Functions instead of modules: maxima, groups, a concatenation, a product, work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.c = nn.Conv2d(6, 3, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        h = F.relu_(self.a(x) - self.shift)
        h = self.scale * F.max_pool2d(h, 2) + 0.5
        g = self.b(h)
        g.add_(h)
        g = g * torch.sigmoid(g)
        h = torch.cat([F.leaky_relu(g), F.max_pool2d(x, kernel_size=2)], dim=1)
        h = F.adaptive_max_pool2d(self.c(F.max_pool2d(h, 2)), 1)
        return F.log_softmax(self.out(h.flatten(1)), dim=1)


@settings(max_examples=25, deadline=None)
@given(density=st.sampled_from([0.05, 0.1, 0.3]), seed=st.integers(0, 10**6))
def test_networks_written_with_functions(density, seed):
    model = Written()
    masks = drawn(model, density, seed)
    numpy = {name: mask.numpy() for name, mask in masks.items()}
    graph = Graph()
    source = graph.nodes(2, 4, 4)
    h = graph.pool(graph.conv(source, "a.weight", numpy["a.weight"], padding=1), 2)
    g = graph.join(graph.conv(h, "b.weight", numpy["b.weight"], padding=1, groups=2), h)
    h = graph.pool(np.concatenate([g, graph.pool(source, 2)]), 2)
    h = graph.conv(h, "c.weight", numpy["c.weight"], padding=1)
    out = graph.linear(h.reshape(-1), "out.weight", numpy["out.weight"])
    check(model, masks, (2, 4, 4), graph, source, out)


def test_only_the_centre_of_a_kernel_meets_a_single_pixel():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3, 2))
    paths = effective(model, {}, (2, 1, 1))
    assert paths.masks["0.weight"].sum() == 2 * 3
    assert paths.masks["0.weight"][:, :, 1, 1].all()
    assert paths.density == 1.0
    assert not paths.layers[0].masked


def test_depth_neither_overflows_nor_underflows():
    """100^160 paths from each unit: more than a double holds, and 0 times infinity is no number."""
    model = nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(162)))
    ring = torch.roll(torch.eye(100, dtype=torch.bool), 1, 0)
    paths = effective(model, {f"{k}.weight": ring for k in (0, 1, 161)}, (100,))
    assert [layer.effective for layer in paths.layers] == [100, 100, *[10_000] * 159, 100]


def test_a_layer_without_weights_collapses_all_that_depends_on_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    paths = effective(model, {"2.weight": torch.zeros(4, 4, dtype=torch.bool)}, (3,))
    assert paths.collapsed == ["0.weight", "2.weight", "4.weight"]
    first, middle, last = paths.layers
    assert (first.dead, first.unreachable) == (0, 4)
    assert (middle.dead, middle.unreachable) == (4, 0)
    assert (last.dead, last.unreachable) == (2, 0)
    assert (first.active, middle.active, paths.effective_density) == (12, 0, 0.0)


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = random_masks(weight_shapes(model), {"0.weight": 5}, 0)
    effective(model, masks, (1, 4, 4))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_shared_weight_is_used_where_any_of_its_places_is():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.again = nn.Linear(3, 3)
            self.again.weight = self.first.weight

        def forward(self, x):
            return self.again(torch.relu(self.first(x)))

    mask = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)  # 0 -> 1 -> 2
    for name in ("first.weight", "again.weight"):
        paths = effective(Twice(), {name: mask}, (3,))
        assert [layer.name for layer in paths.layers] == ["first.weight"]
        assert paths.layers[0].effective == 2
        assert (paths.layers[0].dead, paths.layers[0].unreachable) == (1, 0)


@pytest.mark.parametrize("entry", list(models), ids=lambda entry: entry.name)
def test_every_model_of_the_catalog_can_be_followed(entry):
    shape = entry.facts.get("example", (3, 32, 32))
    model = entry.make(tuple(shape), 10)
    paths = effective(model, {}, shape)
    assert paths.collapsed == []


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.value(x) * self.gate(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.q(x) @ self.k(x).transpose(-1, -2)


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 2)

    def forward(self, x):
        return self.first(torch.cat([x, torch.ones(len(x), 1).to(x)], dim=1))


class Largest(nn.Module):
    def forward(self, x):
        return x.max(dim=1).values


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (nn.LSTM(3, 4, batch_first=True), (5, 3), "through lstm: there signals multiply signals"),
        (nn.GRU(3, 4, batch_first=True), (5, 3), "through gru"),
        (nn.TransformerEncoderLayer(4, 2, batch_first=True), (5, 4), "multi_head_attention_forward"),
        (Attention(), (5, 3), "matmul of two signals, as in attention"),
        (nn.Sequential(nn.Linear(3, 4), nn.GLU()), (3,), "through glu"),
        (Token(), (3,), "first.weight gets a signal that does not come from the input"),
        (nn.Sequential(nn.Linear(3, 4), Largest()), (3,), "through max, which chooses"),
        (nn.Sequential(nn.Linear(3, 4)), (7,), "does not take an input of ones of shape (7,)"),
        (nn.Sequential(nn.Embedding(3, 4)), (3,), "does not take an input of ones"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(model, shape, words):
    with pytest.raises(BadValue) as caught:
        effective(model, {}, shape)
    assert words in str(caught.value)


def test_a_gate_is_refused_where_it_matters():
    dead = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
    assert effective(Gate(), {"gate.weight": dead, "value.weight": dead}, (3,)).layers[0].dead == 1
    with pytest.raises(BadValue, match="a gate"):
        effective(Gate(), {"gate.weight": dead}, (3,))
