"""Ghosts in compact and in compiled networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import Sparse, compact, tost
from sparseflow.core import weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.tost import Fade
from tost_nets import SIZES, batch, net, sgd, train


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    shapes = weight_shapes(model)
    return random_masks(shapes, uniform(shapes, 0.3), seed=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet", {"depth": 8, "width": 8}), ("vgg16", {"width": 4}), ("mobilenet-v1", {"width": 8})],
    ids=["resnet", "vgg16", "mobilenet-v1"],
)
@pytest.mark.parametrize("shortcut", ["pool", "conv"])
def test_a_compact_network_with_ghosts_is_the_masked_one(name, options, shortcut):
    size = SIZES.get(name, 8)
    losses, states = [], []
    for compacted in (False, True):
        model = net(name, **options).double()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eps = 0.1  # a dead channel would tell one rounding from another within a few steps
        masks = masks_of(model)
        with torch.no_grad():
            for key, mask in masks.items():
                model.get_parameter(key).mul_(mask)
        if compacted:
            compact(model, masks)
        x = batch(0, size)[0].double()
        neurons = tost.ghost_neurons_(model, Fade("linear", 2))
        skips = tost.ghost_skips_(model, Fade("linear", 3), x, shortcut=shortcut)
        assert not skips.left
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        Sparse(model, masks, optimizer)
        model.train()
        for step in range(4):
            x, y = batch(step, size)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.double()), y)
            loss.backward()
            optimizer.step()
            for one in (neurons, skips):
                one.step()
            losses.append(float(loss.detach()))
        states.append(model.state_dict())
        assert all(not states[-1][key][~mask].any() for key, mask in masks.items())
    assert losses[:4] == pytest.approx(losses[4:], rel=1e-7)
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-5, atol=1e-8, msg=key)


def test_alpha_0_in_a_compact_network_is_the_compact_network_bit_for_bit():
    outcomes = []
    for ghosted in (False, True):
        model = net(depth=8, width=8)
        masks = masks_of(model)
        with torch.no_grad():
            for key, mask in masks.items():
                model.get_parameter(key).mul_(mask)
        compact(model, masks)
        if ghosted:
            tost.ghost_skips_(model, Fade("constant", alpha=0.0), batch(0)[0])
        outcomes.append((train(model, sgd(model), (), range(3)), model.state_dict()))
    assert outcomes[0][0] == outcomes[1][0]
    assert all(torch.equal(value, outcomes[1][1][key]) for key, value in outcomes[0][1].items())


@pytest.mark.slow  # the first call of torch.compile in a process takes seconds
@pytest.mark.parametrize("kinds", ["neurons", "skips"])
def test_a_compiled_model_is_compiled_once_for_all_alphas_and_once_without(kinds):
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    x, model = batch(0)[0], net()
    made = {"neurons": lambda: (tost.ghost_neurons_(model, Fade("linear", 5)),)}
    made["skips"] = lambda: (tost.ghost_skips_(model, Fade("linear", 5), x),)
    ghosts = made[kinds]()
    compiled = torch.compile(model, backend=counting, fullgraph=True)
    outputs = []
    for _ in range(5):
        assert torch.equal(compiled(x), copy.deepcopy(model)(x))
        outputs.append(compiled(x))
        for one in ghosts:
            one.step()
    assert len(graphs) == 1
    assert not any(torch.equal(a, b) for a, b in zip(outputs[1:], outputs, strict=False))
    assert all(one.finished for one in ghosts)
    fresh = net()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(compiled(x), fresh(x))
    assert len(graphs) == 2
