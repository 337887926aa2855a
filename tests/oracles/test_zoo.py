"""Each network against a functional one written here from its paper, in float64 with batch statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, stream, weight_shapes
from sparseflow.models import materialise, models, sketch

State = dict[str, Tensor]


def filled(name: str, shape: tuple[int, ...], classes: int = 4, **options: Any) -> nn.Module:
    """A network whose every parameter is drawn, biases and norms too."""
    model = materialise(sketch(name, shape, classes, **options), dtype=torch.float64)
    draw = stream(3, "zoo")
    with torch.no_grad():
        for p in model.parameters():
            deviation = (2.0 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype) * deviation + (0.5 if p.dim() < 2 else 0.0))
    return model


def agree(model: nn.Module, shape: tuple[int, ...], by_definition: Callable[[State, Tensor], Tensor]) -> None:
    x = torch.randn((6, *shape), generator=stream(4, "zoo"), dtype=torch.float64)
    state = dict(model.named_parameters())
    torch.testing.assert_close(model(x), by_definition(state, x), rtol=1e-9, atol=1e-11)


def normed(s: State, z: Tensor, name: str) -> Tensor:
    axes = (0, *range(2, z.dim()))
    mean, var = z.mean(axes, keepdim=True), z.var(axes, correction=0, keepdim=True)
    scale, shift = (s[f"{name}.{what}"].view(1, -1, *[1] * (z.dim() - 2)) for what in ("weight", "bias"))
    return (z - mean) / (var + 1e-5).sqrt() * scale + shift


def unit(s: State, x: Tensor, name: str, **how: Any) -> Tensor:
    return normed(s, F.conv2d(x, s[f"{name}.conv.weight"], **how), f"{name}.norm")


def affine(s: State, h: Tensor, name: str) -> Tensor:
    return h @ s[f"{name}.weight"].t() + s[f"{name}.bias"]


def test_lenet_300_100():
    model = filled("lenet-300-100", (2, 3, 4), width=9)
    assert model.first.weight.shape == (9, 24)
    assert model.second.weight.shape == (3, 9)

    def by_definition(s: State, x: Tensor) -> Tensor:
        h = affine(s, x.reshape(len(x), 24), "first").clamp_min(0)
        return affine(s, affine(s, h, "second").clamp_min(0), "output")

    agree(model, (2, 3, 4), by_definition)


def test_widths_of_the_lenets_are_what_they_are_given():
    small = filled("lenet-5", (1, 28, 28), widths=(1, 4, 25, 17))
    assert [shape[0] for shape in weight_shapes(small).values()] == [1, 4, 25, 17, 4]
    small = filled("lenet-300-100", (5,), widths=(7, 2))
    assert [tuple(shape) for shape in weight_shapes(small).values()] == [(7, 5), (2, 7), (4, 2)]
    with pytest.raises(BadValue, match="4 whole numbers"):
        filled("lenet-5", (1, 28, 28), widths=(1, 4))
    with pytest.raises(BadValue, match="at least 1"):
        filled("lenet-300-100", (5,), widths=(0, 4))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_norm_of_lenet_300_100_stands_before_the_activation(norm):
    model = filled("lenet-300-100", (7,), norm=norm)
    assert "first.bias" not in model.state_dict()

    def by_definition(s: State, x: Tensor) -> Tensor:
        for name in ("first", "second"):
            z = x @ s[f"{name}.weight"].t()
            axis = 0 if norm == "batch" else 1
            z = (z - z.mean(axis, keepdim=True)) / (z.var(axis, correction=0, keepdim=True) + 1e-5).sqrt()
            x = (z * s[f"{name}_norm.weight"] + s[f"{name}_norm.bias"]).clamp_min(0)
        return affine(s, x, "output")

    agree(model, (7,), by_definition)


def lenet_5(s: State, x: Tensor) -> Tensor:
    for name in ("first", "second"):
        z = F.conv2d(x, s[f"{name}.conv.weight"], s[f"{name}.conv.bias"])
        x = F.max_pool2d(z.relu(), 2)
    h = x.flatten(1)
    for name in ("third", "fourth"):
        h = affine(s, h, name).relu()
    return affine(s, h, "output")


def test_lenet_5():
    model = filled("lenet-5", (1, 28, 28))
    assert [tuple(p.shape) for key, p in model.named_parameters() if key.endswith("weight")] == [
        (6, 1, 5, 5),
        (16, 6, 5, 5),
        (120, 256),
        (84, 120),
        (4, 84),
    ]
    agree(model, (1, 28, 28), lenet_5)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("shape", "border"), [((2, 8, 8), (4, 4, 4, 4)), ((1, 20, 11), (2, 3, 0, 0))])
def test_lenet_5_centres_small_images_in_a_field_of_16_and_pads_it(shape, border, padding):
    """Zeros of the padding lie around the field, so they are there whatever the size of the image."""
    model = filled("lenet-5", shape, padding=padding)
    agree(model, shape, lambda s, x: lenet_5(s, F.pad(F.pad(x, border), (padding,) * 4)))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg16(norm):
    model = filled("vgg16", (3, 17, 16), width=4, norm=norm)

    def by_definition(s: State, x: Tensor) -> Tensor:
        for stage, count in enumerate((2, 2, 3, 3, 3)):
            x = F.max_pool2d(x, 2) if stage else x
            for k in range(count):
                name = f"stages.{stage}.{k}"
                if norm == "batch":
                    x = unit(s, x, name, padding=1).relu()
                else:
                    x = F.conv2d(x, s[f"{name}.conv.weight"], s[f"{name}.conv.bias"], padding=1).relu()
        assert x.shape[2:] == (1, 1)
        return affine(s, x.mean((2, 3)), "output")

    agree(model, (3, 17, 16), by_definition)


def projected(s: State, x: Tensor, block: str, stride: int) -> Tensor:
    """A shortcut of He et al.'s option B, where there is one."""
    weight = s.get(f"{block}.projection.0.weight")
    return x if weight is None else normed(s, F.conv2d(x, weight, stride=stride), f"{block}.projection.1")


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["resnet-18", "resnet-50"])
def test_resnets_of_imagenet(name, stem):
    shape = (3, 9, 8) if stem == "cifar" else (3, 33, 30)
    model = filled(name, shape, width=3, stem=stem)
    stages = (2, 2, 2, 2) if name == "resnet-18" else (3, 4, 6, 3)

    def by_definition(s: State, x: Tensor) -> Tensor:
        how = {"padding": 1} if stem == "cifar" else {"padding": 3, "stride": 2}
        h = normed(s, F.conv2d(x, s["first.weight"], **how), "norm").relu()
        if stem == "imagenet":
            h = F.max_pool2d(h, 3, 2, padding=1)
        strides = [2 if stage and not k else 1 for stage, count in enumerate(stages) for k in range(count)]
        for k, stride in enumerate(strides):
            block = f"blocks.{k}"
            carried = projected(s, h, block, stride)
            if name == "resnet-18":
                h = F.conv2d(h, s[f"{block}.first.weight"], stride=stride, padding=1)
                h = F.conv2d(normed(s, h, f"{block}.first_norm").relu(), s[f"{block}.second.weight"], padding=1)
                h = (normed(s, h, f"{block}.second_norm") + carried).relu()
            else:
                h = normed(s, F.conv2d(h, s[f"{block}.first.weight"]), f"{block}.first_norm").relu()
                h = F.conv2d(h, s[f"{block}.second.weight"], stride=stride, padding=1)
                h = F.conv2d(normed(s, h, f"{block}.second_norm").relu(), s[f"{block}.third.weight"])
                h = (normed(s, h, f"{block}.third_norm") + carried).relu()
        return affine(s, h.mean((2, 3)), "output")

    agree(model, shape, by_definition)
    projections = sum("projection.0.weight" in key for key in dict(model.named_parameters()))
    assert projections == (3 if name == "resnet-18" else 4)


@pytest.mark.parametrize("skip", [True, False])
def test_wide_resnet(skip):
    model = filled("wide-resnet", (3, 9, 8), depth=16, width=5, skip=skip)

    def by_definition(s: State, x: Tensor) -> Tensor:
        h = F.conv2d(x, s["first.weight"], padding=1)
        for k in range(6):
            stride = 2 if k in (2, 4) else 1
            entering = normed(s, h, f"blocks.{k}.first_norm").relu()
            z = F.conv2d(entering, s[f"blocks.{k}.first.weight"], stride=stride, padding=1)
            z = F.conv2d(normed(s, z, f"blocks.{k}.second_norm").relu(), s[f"blocks.{k}.second.weight"], padding=1)
            if skip:
                changed = k in (0, 2, 4)
                z = z + (F.conv2d(entering, s[f"blocks.{k}.projection.weight"], stride=stride) if changed else h)
            h = z
        return affine(s, normed(s, h, "norm").relu().mean((2, 3)), "output")

    agree(model, (3, 9, 8), by_definition)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_mobilenet_v1(stem):
    model = filled("mobilenet-v1", (3, 32, 32), width=4, stem=stem)
    halved = []

    def by_definition(s: State, x: Tensor) -> Tensor:
        h = unit(s, x, "first", padding=1, stride=1 if stem == "cifar" else 2).relu()
        for k in range(13):
            stride = 2 if k in (1, 3, 5, 11) else 1
            h = unit(s, h, f"blocks.{k}.depthwise", padding=1, stride=stride, groups=h.shape[1]).relu()
            h = unit(s, h, f"blocks.{k}.pointwise").relu()
        halved.append(h.shape[2])
        return affine(s, h.mean((2, 3)), "output")

    agree(model, (3, 32, 32), by_definition)
    assert halved == [2 if stem == "cifar" else 1]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_mobilenet_v2(stem):
    """ReLU6 after every convolution but the last of a block; the sum where neither size nor channels change."""
    model = filled("mobilenet-v2", (3, 32, 32), width=4, stem=stem)
    sizes = []

    def relu6(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    def by_definition(s: State, x: Tensor) -> Tensor:
        h = relu6(unit(s, x, "first", padding=1, stride=1 if stem == "cifar" else 2))
        halving = {3, 6, 13} if stem == "cifar" else {1, 3, 6, 13}
        for k in range(17):
            block, z = f"blocks.{k}", h
            if k:
                z = relu6(unit(s, z, f"{block}.expand"))
            stride = 2 if k in halving else 1
            z = relu6(unit(s, z, f"{block}.depthwise", padding=1, stride=stride, groups=z.shape[1]))
            z = normed(s, F.conv2d(z, s[f"{block}.project.weight"]), f"{block}.project_norm")
            # The blocks that repeat the one before; the first of each stage changes its channels or its size.
            h = z + h if k in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15) else z
        sizes.append(h.shape[2])
        return affine(s, relu6(unit(s, h, "last")).mean((2, 3)), "output")

    agree(model, (3, 32, 32), by_definition)
    assert sizes == [4 if stem == "cifar" else 1]


@pytest.mark.parametrize("name", [m for m in models.names if "dropout" in models.entry(m).facts["options"]])
def test_dropout_is_off_unless_asked_for_and_in_evaluation(name):
    shape = models.entry(name).facts["example"]
    x = torch.randn((3, *shape), generator=stream(0, "zoo"), dtype=torch.float64)
    assert torch.equal(filled(name, shape, width=5)(x), filled(name, shape, width=5)(x))
    model = filled(name, shape, width=5, dropout=0.5)
    torch.manual_seed(0)  # five units may all be dropped, twice
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
