"""The residual network against the paper's counts and a functional one written here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sparseflow.core import BadValue, other_parameters, weight_shapes
from sparseflow.models import ResNet


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_parameters_with_padded_shortcuts(depth, count):
    """He et al. 2015, Table 6, gives 0.27, 0.46, 0.66, 0.85 and 1.7 million."""
    with torch.device("meta"):
        model = ResNet((3, 32, 32), 10, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for p in ResNet((3, 32, 32), 10, depth=8, skip=False).parameters()) == sum(
        p.numel() for p in ResNet((3, 32, 32), 10, depth=8).parameters()
    )


def test_parameters_with_convolutional_shortcuts():
    """Two 1x1 convolutions more, 16 x 32 and 32 x 64, each with a norm."""
    with torch.device("meta"):
        model = ResNet((3, 32, 32), 10, depth=20, shortcut="conv")
    assert sum(p.numel() for p in model.parameters()) == 269_722 + 512 + 2048 + 2 * (32 + 64)


def by_definition(model: ResNet, x: Tensor, *, norm: bool, skip: bool, shortcut: str) -> Tensor:
    """With batch statistics, three stages of one block."""
    state = dict(model.named_parameters())

    def normed(z: Tensor, name: str) -> Tensor:
        if not norm:
            return z
        mean, var = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (state[f"{name}.{what}"].view(1, -1, 1, 1) for what in ("weight", "bias"))
        return (z - mean) / (var + 1e-5).sqrt() * scale + shift

    h = normed(F.conv2d(x, state["first.weight"], padding=1), "norm").relu()
    for k in range(3):
        stride = 1 if k == 0 else 2
        z = F.conv2d(h, state[f"blocks.{k}.first.weight"], padding=1, stride=stride)
        z = normed(z, f"blocks.{k}.first_norm").relu()
        z = normed(F.conv2d(z, state[f"blocks.{k}.second.weight"], padding=1), f"blocks.{k}.second_norm")
        if skip and stride == 1:
            z = z + h
        elif skip and shortcut == "pad":
            zeros = torch.zeros_like(h[:, : h.shape[1] // 2, ::2, ::2])
            z = z + torch.cat([zeros, h[:, :, ::2, ::2], zeros], 1)
        elif skip:
            carried = F.conv2d(h, state[f"blocks.{k}.projection.0.weight"], stride=2)
            z = z + normed(carried, f"blocks.{k}.projection.1")
        h = z.relu()
    return h.mean((2, 3)) @ state["output.weight"].t() + state["bias"]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("shortcut", ["pad", "conv"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_forward(norm, shortcut, skip):
    model = ResNet((3, 10, 8), 4, depth=8, width=4, norm=norm, shortcut=shortcut, skip=skip).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=draw, dtype=torch.float64) + (0.5 if p.dim() < 2 else 0.0))
    x = torch.randn(5, 3, 10, 8, generator=draw, dtype=torch.float64)
    expected = by_definition(model, x, norm=norm == "batch", skip=skip, shortcut=shortcut)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)


def test_the_rest_of_the_options_change_something():
    """Dropout drops between the convolutions; activations and the norm's parameters are as asked for."""
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = ResNet((3, 8, 8), 4, depth=8, dropout=0.5)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    assert len(other_parameters(ResNet((3, 8, 8), 4, depth=8, norm_affine=False))) == 1
    slopes = other_parameters(ResNet((3, 8, 8), 4, depth=8, norm="none", activation="prelu"))
    assert len(slopes) == 1 + 1 + 2 * 3
    assert list(weight_shapes(model))[-1] == "output.weight"


@pytest.mark.parametrize(
    "options",
    [{"depth": 2}, {"depth": 9}, {"width": 0}, {"norm": "layer"}, {"shortcut": "B"}, {"dropout": 1.0}],
)
def test_impossible_networks_are_refused(options):
    with pytest.raises(BadValue):
        ResNet((3, 8, 8), 4, **options)
    with pytest.raises(BadValue, match="images"):
        ResNet((12,), 4)
