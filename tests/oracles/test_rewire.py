"""Rewiring a compact layer equals making it anew from the new mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparseflow.core import BadValue
from sparseflow.sparse import CompactConv2d, CompactLinear, Structure


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_rewired_structure_is_that_of_the_new_mask(data):
    shape = data.draw(st.sampled_from([(1, 1), (3, 5), (8, 4), (4, 3, 2, 2)]))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    mask = torch.rand(shape, generator=draw) < data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    structure = Structure.of(mask)
    drop = torch.randperm(structure.active, generator=draw)[: data.draw(st.integers(0, structure.active))]
    flat = structure.flat()
    new = mask.flatten().clone()
    new[flat[drop]] = False
    free = (~new).nonzero().squeeze(1)  # a dropped weight may come back
    grow = free[torch.randperm(len(free), generator=draw)[: data.draw(st.integers(0, len(free)))]]
    new[grow] = True
    rewired, source = structure.rewired(drop, grow)
    expected = Structure.of(new.view(shape))
    assert torch.equal(rewired.starts, expected.starts)
    assert torch.equal(rewired.outs, expected.outs)
    assert rewired.starts.dtype is rewired.outs.dtype is torch.int32
    old = source >= 0
    assert torch.equal(rewired.flat()[old], flat[source[old]])
    assert set(rewired.flat()[~old].tolist()) == set(grow.tolist())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_rewired_layer_is_the_layer_of_the_new_mask(kind):
    torch.manual_seed(0)
    shape = (12, 9) if kind == "linear" else (6, 5, 3, 3)
    mask = torch.rand(shape) < 0.3
    make = CompactLinear if kind == "linear" else CompactConv2d
    layer = make(mask, nn.Parameter(torch.randn(shape[0], dtype=torch.float64)), dtype=torch.float64)
    layer.set_active(torch.randn(int(mask.sum()), dtype=torch.float64))
    x = torch.randn(7, 9, dtype=torch.float64) if kind == "linear" else torch.randn(4, 5, 6, 6, dtype=torch.float64)
    stale = layer(x)
    parameter, before = layer.values, layer.dense_weight()
    drop = torch.randperm(layer.values.numel())[:8]
    dropped = layer.structure.flat()[drop]
    grow = (~mask).flatten().nonzero().squeeze(1)[::7][:8]
    source = layer.rewire_(drop, grow)
    assert layer.values is parameter
    assert (source < 0).sum() == len(grow)
    expected = before.clone().flatten()
    expected[dropped] = 0.0
    assert torch.equal(layer.dense_weight().flatten(), expected)
    new_mask = mask.flatten().clone()
    new_mask[dropped], new_mask[grow] = False, True
    assert torch.equal(layer.active_mask().flatten(), new_mask)
    layer.values.data.normal_()
    fresh = make(new_mask.view(shape), layer.bias, dtype=torch.float64)
    fresh.values.data.copy_(layer.values)
    y = layer(x)
    assert torch.equal(y, fresh(x))
    y.sum().backward()
    assert layer.values.grad.shape == layer.values.shape
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.sum().backward()


def test_more_or_fewer_weights_may_stand_after_it():
    layer = CompactLinear(torch.eye(4, dtype=torch.bool))
    layer.rewire_(torch.arange(4), torch.tensor([], dtype=torch.int64))
    assert layer.values.numel() == 0
    assert torch.equal(layer(torch.ones(2, 4)), torch.zeros(2, 4))
    layer.rewire_(torch.tensor([], dtype=torch.int64), torch.arange(16))
    assert layer.active_mask().all()
    assert layer(torch.ones(2, 4)).shape == (2, 4)


def test_what_cannot_be_is_named():
    structure = Structure.of(torch.eye(3, dtype=torch.bool))
    none = torch.tensor([], dtype=torch.int64)
    for drop, grow, word in (
        (torch.tensor([3]), none, r"drop must lie in \[0, 3\)"),
        (torch.tensor([-1]), none, "drop must lie"),
        (torch.tensor([1, 1]), none, "drop names a weight twice"),
        (none, torch.tensor([9]), "grow must lie"),
        (none, torch.tensor([1, 1]), "grow names a weight twice"),
        (none, torch.tensor([0]), "active already"),
        (none, torch.tensor([8]), "active already"),
        (torch.tensor([0.0]), none, "int64"),
        (torch.tensor([[0]]), none, "flat"),
    ):
        with pytest.raises(BadValue, match=word):
            structure.rewired(drop, grow)
