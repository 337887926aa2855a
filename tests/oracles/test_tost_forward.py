"""Ghosts against forward passes written out, for a residual block, plain and pre-activation networks, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import tost
from sparseflow.models import models
from sparseflow.tost import BETA_MAX, Fade, pooled_identity


def net(name: str, size: int = 8, **options) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models[name]((3, size, size), 5, **options).double()
        for p in model.parameters():
            if p.dim() < 2:
                nn.init.normal_(p, 0.5, 0.3)
    return model


def images(n: int = 4, size: int = 8) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def normed(norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    """With the batch's own statistics."""
    mean = y.mean((0, 2, 3), keepdim=True)
    var = ((y - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scale, shift = (p.view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    return (y - mean) / (var + 1e-5).sqrt() * scale + shift


def ghost(x: Tensor, channels: int, stride: int) -> Tensor:
    """By loops over the channels: means of windows of `stride` x `stride`, zeros before and after."""
    n, into, height, width = x.shape
    out = x.new_zeros(n, channels, height // stride, width // stride)
    for c in range(into):
        if not 0 <= c + (channels - into) // 2 < channels:
            continue
        cells = x[:, c].reshape(n, height // stride, stride, width // stride, stride)
        out[:, c + (channels - into) // 2] = cells.mean((2, 4))
    return out


def unit(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, alpha: float) -> Tensor:
    """Convolution, norm, ghost skip."""
    y = normed(norm, F.conv2d(x, conv.weight, None, conv.stride, conv.padding, 1, conv.groups))
    if conv.kernel_size == (3, 3):
        y = y + alpha * ghost(x, conv.out_channels, conv.stride[0])
    return y


def shortcut(block: nn.Module, x: Tensor) -> Tensor:
    if block.projection is not None:
        conv, norm = block.projection
        return normed(norm, F.conv2d(x, conv.weight, None, conv.stride))
    return F.pad(x[:, :, :: block.stride, :: block.stride], (0, 0, 0, 0, block.added // 2, block.added // 2))


Act = Callable[[Tensor], Tensor]


def resnet(m: nn.Module, x: Tensor, alpha: float, act: Act) -> Tensor:
    h = act(unit(m.first, m.norm, x, alpha))
    for block in m.blocks:
        inner = act(unit(block.first, block.first_norm, h, alpha))
        h = act(unit(block.second, block.second_norm, inner, alpha) + shortcut(block, h))
    return h.mean((2, 3)) @ m.output.weight.t() + m.bias


def bottlenecks(m: nn.Module, x: Tensor, alpha: float, act: Act) -> Tensor:
    h = act(unit(m.first, m.norm, x, alpha))
    for block in m.blocks:
        inner = act(unit(block.first, block.first_norm, h, alpha))
        inner = act(unit(block.second, block.second_norm, inner, alpha))
        h = act(unit(block.third, block.third_norm, inner, alpha) + shortcut(block, h))
    return h.mean((2, 3)) @ m.output.weight.t() + m.output.bias


def vgg(m: nn.Module, x: Tensor, alpha: float, act: Act) -> Tensor:
    for k, stage in enumerate(m.stages):
        x = F.max_pool2d(x, 2) if k else x
        for part in stage:
            x = act(unit(part.conv, part.norm, x, alpha))
    return x.mean((2, 3)) @ m.output.weight.t() + m.output.bias


def mobilenet(m: nn.Module, x: Tensor, alpha: float, act: Act) -> Tensor:
    h = act(unit(m.first.conv, m.first.norm, x, alpha))
    for block in m.blocks:
        h = act(unit(block.depthwise.conv, block.depthwise.norm, h, alpha))
        h = act(unit(block.pointwise.conv, block.pointwise.norm, h, alpha))
    return h.mean((2, 3)) @ m.output.weight.t() + m.output.bias


def wide(m: nn.Module, x: Tensor, alpha: float, act: Act) -> Tensor:
    """Behind the next norm where it alone takes the output, else on the sum with the native shortcut."""
    h = F.conv2d(x, m.first.weight, None, 1, 1)
    passing = alpha * ghost(x, 16, 1)  # of the stem, which the first block's norm alone takes
    for block in m.blocks:
        entering = act(normed(block.first_norm, h) + passing)
        stride = block.first.stride[0]
        inner = act(unit(block.first, block.second_norm, entering, alpha))
        way = h if block.projection is None else F.conv2d(entering, block.projection.weight, None, stride)
        h, passing = F.conv2d(inner, block.second.weight, None, 1, 1) + alpha * inner + way, 0.0
    return act(normed(m.norm, h)).mean((2, 3)) @ m.output.weight.t() + m.output.bias


CASES = {
    "resnet": (net("resnet", depth=14, width=4), resnet),
    "resnet, option B": (net("resnet", depth=8, width=4, shortcut="conv"), resnet),
    "resnet-50": (net("resnet-50", width=3), bottlenecks),
    "vgg16": (net("vgg16", 16, width=4), vgg),
    "mobilenet-v1": (net("mobilenet-v1", 16, width=4), mobilenet),
    "wide-resnet": (net("wide-resnet", depth=10, width=6), wide),
}


def soft(beta: float) -> Act:
    return lambda z: z / (1 + (-beta * z).exp())


@pytest.mark.parametrize("alpha", [1.0, 0.37])
@pytest.mark.parametrize("name", CASES)
def test_ghost_skips_are_the_sum_that_is_written_out(name, alpha):
    template, forward = CASES[name]
    model = copy.deepcopy(template)
    x = images(size=16 if name in ("vgg16", "mobilenet-v1") else 8)
    torch.testing.assert_close(model(x), forward(model, x, 0.0, F.relu))
    ghosts = tost.ghost_skips_(model, Fade("constant", 3, alpha), x)
    assert not ghosts.left
    expected = forward(model, x, alpha, F.relu)
    torch.testing.assert_close(model(x), expected)
    assert (expected - template(x)).abs().max() > 1e-3
    while not ghosts.finished:
        ghosts.step()
    torch.testing.assert_close(model(x), forward(model, x, 0.0, F.relu))


@pytest.mark.parametrize("name", CASES)
def test_ghost_neurons_are_the_formula_that_is_written_out(name):
    template, forward = CASES[name]
    model = copy.deepcopy(template)
    x = images(size=16 if name in ("vgg16", "mobilenet-v1") else 8)
    ghosts = tost.ghost_neurons_(model, Fade("linear", 5))
    for step, beta in enumerate((1, 4 / 3, 2, 4, BETA_MAX)):
        assert (ghosts.steps, ghosts.beta) == (step, beta)
        torch.testing.assert_close(model(x), forward(model, x, 0.0, soft(beta)))
        ghosts.step()
    assert ghosts.finished
    assert ghosts.beta == float("inf")
    torch.testing.assert_close(model(x), forward(model, x, 0.0, F.relu))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_an_identity_passes_a_block_with_the_factor_that_the_page_says(alpha):
    model = copy.deepcopy(CASES["resnet"][0])
    tost.ghost_skips_(model, Fade("constant", alpha=alpha), images())
    block = model.blocks[0]
    with torch.no_grad():
        for p in (*block.first_norm.parameters(), *block.second_norm.parameters()):
            p.zero_()
    x = torch.rand(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), (1 + alpha**2) * x)


def test_both_at_once_and_every_gradient():
    template, forward = CASES["resnet"]
    model = copy.deepcopy(template)
    tost.ghost_neurons_(model, Fade("constant", alpha=0.5))
    tost.ghost_skips_(model, Fade("constant", alpha=0.8), images())
    written = copy.deepcopy(template)
    model(images()).square().sum().backward()
    forward(written, images(), 0.8, soft(2.0)).square().sum().backward()
    for (key, a), b in zip(model.named_parameters(), written.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [*CASES, "mobilenet-v2"])
def test_alpha_0_is_the_plain_network_bit_for_bit(name):
    template = CASES[name][0] if name in CASES else net(name, 16, width=4)
    x = images(size=16 if "net-v" in name or name == "vgg16" else 8).float()
    plain, model = copy.deepcopy(template).float(), copy.deepcopy(template).float()
    tost.ghost_skips_(model, Fade(end=9, alpha=0.0), x)
    for training in (True, False):
        for m in (plain, model):
            m.train(training).zero_grad()
            m(x).square().sum().backward()
        assert torch.equal(plain(x), model(x))
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(a, plain.state_dict()[key]) for key, a in model.state_dict().items())


def test_relu6_is_cut_off_at_6_and_in_place_writes_to_its_input():
    x = torch.linspace(-9, 9, 50, dtype=torch.float64)
    for plain, limit in ((nn.ReLU6, 6.0), (nn.ReLU, float("inf"))):
        for inplace in (False, True):
            model = nn.Sequential(plain(inplace))
            tost.ghost_neurons_(model, Fade("constant", alpha=0.25))
            given, leaf = x.clone(), x.clone().requires_grad_()
            out = model(given)
            expected = (x * torch.sigmoid(4 * x)).clamp(max=limit)
            torch.testing.assert_close(out, expected)
            assert torch.equal(given, out if inplace else x)
            model(leaf * 1.0).sum().backward()
            reference = x.clone().requires_grad_()
            (reference * torch.sigmoid(4 * reference)).clamp(max=limit).sum().backward()
            torch.testing.assert_close(leaf.grad, reference.grad)


@pytest.mark.parametrize(
    ("shape", "wanted"), [((2, 3, 8, 8), (2, 6, 4, 4)), ((2, 4, 7, 5), (2, 4, 7, 5)), ((3, 8, 8), (7, 8, 8))]
)
def test_pooled_identity(shape, wanted):
    x = torch.randn(shape, dtype=torch.float64)
    y = pooled_identity(x, torch.Size(wanted))
    assert y.shape == wanted
    if len(shape) == 4:
        torch.testing.assert_close(y, ghost(x, wanted[1], shape[2] // wanted[2]))
    else:
        assert torch.equal(y[2:5], x)
        assert not y[[0, 1, 5, 6]].any()


def test_pooled_identity_of_odd_sides_and_fewer_channels():
    """Windows overlap where sides do not divide; surplus channels are cut off at both ends."""
    x = torch.arange(5.0).expand(1, 5, 5, 5) + torch.arange(5.0).view(1, 5, 1, 1) * 100
    y = pooled_identity(x, torch.Size((1, 2, 3, 3)))
    assert torch.equal(y[0, :, 0], torch.tensor([[0.5, 2.0, 3.5], [100.5, 102.0, 103.5]]) + 200)


def test_the_1x1_option_is_a_convolution_and_a_batch_norm_where_shapes_differ():
    template, _ = CASES["resnet"]
    model = copy.deepcopy(template)
    ghosts = tost.ghost_skips_(model, Fade("constant", 2, 0.7), images(), shortcut="conv", seed=4)
    own = {key for key, _ in model.named_parameters()} - {key for key, _ in template.named_parameters()}
    layers = ("first", "blocks.2.first", "blocks.4.first")
    kinds = ("0.weight", "1.weight", "1.bias")
    assert own == {f"{layer}.ghost.{kind}" for layer in layers for kind in kinds}
    assert {id(p) for p in ghosts.parameters()} == {id(model.get_parameter(key)) for key in own}
    assert ghosts.extra_weights == 3 * 4 + 4 * 8 + 8 * 16
    block = model.blocks[2]
    x = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    made, norm = block.first.ghost
    y = normed(block.first_norm, F.conv2d(x, block.first.weight, None, 2, 1))
    y = (y + 0.7 * normed(norm, F.conv2d(x, made.weight, None, 2))).relu()
    y = normed(block.second_norm, F.conv2d(y, block.second.weight, None, 1, 1)) + 0.7 * y
    torch.testing.assert_close(block(x), (y + shortcut(block, x)).relu())
    again = copy.deepcopy(template)
    tost.ghost_skips_(again, Fade("constant", 2), images(), shortcut="conv", seed=4)
    assert all(torch.equal(again.get_parameter(key), model.get_parameter(key)) for key in own)
    assert float(made.weight.detach().std()) == pytest.approx((2 / 4) ** 0.5, rel=0.4)
    ghosts.finish()
    assert model.state_dict().keys() == template.state_dict().keys()
    assert ghosts.extra_weights == 0
