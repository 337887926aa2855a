"""Batch normalisation that keeps the batch last, against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sparseflow.sparse import native
from sparseflow.sparse.norm import forget_batch_last, keep_batch_last

if not native.available():
    pytest.skip("installed without the C kernels", allow_module_level=True)

CASES = {
    "1d": ((37, 50), nn.BatchNorm1d),
    "2d": ((9, 5, 6, 7), nn.BatchNorm2d),
    "long": ((130, 3, 16, 16), nn.BatchNorm2d),
}


def stored(x: Tensor, *, batch_last: bool) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0) if batch_last else x.contiguous()


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_torchs(case, dtype, tolerance, affine, momentum, isa):
    best = native.norm().isa()
    try:
        native.norm().use_isa(isa)
    except ValueError:
        pytest.skip(f"this processor has no {isa}")
    try:
        _compare(*case, dtype, tolerance, affine, momentum)
    finally:
        native.norm().use_isa(best)


def _compare(shape, kind, dtype, tolerance, affine, momentum):
    torch.manual_seed(0)
    reference = kind(shape[1], affine=affine, momentum=momentum, dtype=dtype)
    if affine:
        nn.init.normal_(reference.weight)
        nn.init.normal_(reference.bias)
    ours = copy.deepcopy(reference)
    keep_batch_last(ours)
    assert isinstance(ours, kind)
    for step in range(3):
        x = torch.randn(shape, dtype=dtype) * 3 + step
        a, b = (stored(x, batch_last=last).requires_grad_() for last in (False, True))
        y, expected = ours(b), reference(a)
        assert y.movedim(0, -1).is_contiguous(), "stays batch last"
        torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
        g = torch.randn_like(expected)
        found = torch.autograd.grad(y, [b, *ours.parameters()], g)
        wanted = torch.autograd.grad(expected, [a, *reference.parameters()], g)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)
        for key, value in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.eval()(b), reference.eval()(a), rtol=tolerance, atol=tolerance)


def test_second_derivatives():
    layer = nn.BatchNorm1d(3, dtype=torch.float64)
    keep_batch_last(layer)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    inputs = (
        x,
        torch.randn(3, dtype=torch.float64, requires_grad=True),
        torch.randn(3, dtype=torch.float64, requires_grad=True),
    )

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x.t(),))

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_other_tensors_go_torchs_way():
    layer = nn.BatchNorm2d(4)
    reference = copy.deepcopy(layer)
    keep_batch_last(layer)
    for x in (
        torch.randn(6, 4, 5, 5),
        torch.randn(6, 4, 5, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(6, 4, 5, 10)[..., ::2],
    ):
        assert torch.equal(layer(x), reference(x))
    with pytest.raises(ValueError, match="4D"):
        layer(torch.randn(4, 6).t())
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(torch.randn(1, 4, 1, 1))
    frozen = nn.BatchNorm1d(3, track_running_stats=False)
    keep_batch_last(frozen)
    x = torch.randn(3, 8).t()
    torch.testing.assert_close(frozen.eval()(x), nn.BatchNorm1d(3, track_running_stats=False)(x.contiguous()))


def test_only_plain_modules_change_and_come_back():
    class Own(nn.BatchNorm1d):
        pass

    model = nn.Sequential(nn.BatchNorm1d(3), Own(3), nn.BatchNorm2d(3), nn.LayerNorm(3), nn.SyncBatchNorm(3))
    kinds = [type(m) for m in model]
    keep_batch_last(model)
    assert [type(m) is kind for m, kind in zip(model, kinds, strict=True)] == [False, True, False, True, True]
    forget_batch_last(model)
    assert [type(m) for m in model] == kinds


def test_the_border_refuses():
    x = torch.zeros(3, 4)
    f, b = native.buffer(x), native.buffer(torch.zeros(3, dtype=torch.float64))
    C = native.norm()
    for call in (
        lambda: C.forward(4, 3, 5, 1e-5, f, None, None, f, b, b, 0, 1),
        lambda: C.forward(4, 3, 4, 1e-5, f, (b[0], 2), None, f, b, b, 0, 1),
        lambda: C.forward(2, 3, 4, 1e-5, f, None, None, f, b, b, 0, 1),
        lambda: C.forward(4, 0, 4, 1e-5, f, None, None, f, b, b, 0, 1),
        lambda: C.forward(4, 3, 4, 1e-5, f, None, None, f, b, b, 2, 2),
        lambda: C.backward(4, 3, 4, 1e-5, f, None, None, b, b, f, b, b, 0, 1),
        lambda: C.backward(4, 3, 4, 1e-5, f, f, None, b, (b[0], 2), f, b, b, 0, 1),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("affine", [True, False])
def test_by_running_statistics_a_graph_keeps_the_batch_last_and_has_torchs_derivatives(affine):
    """To the second order; without a graph it is torch's own, bit for bit."""
    plain = nn.BatchNorm2d(3, affine=affine).double().eval()
    for part in (plain.running_mean, plain.running_var, *plain.parameters()):
        nn.init.uniform_(part, 0.5, 2.0)
    keeping = copy.deepcopy(plain)
    keep_batch_last(keeping)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).movedim(-1, 0)
    found = []
    for norm in (plain, keeping):
        inputs = [x.detach().requires_grad_(), *norm.parameters()]
        y = norm(inputs[0])
        slopes = torch.autograd.grad((y**3).sum(), inputs, create_graph=True)
        found.append([y, *slopes, *torch.autograd.grad(sum((s**2).sum() for s in slopes), inputs)])
    assert y.movedim(0, -1).is_contiguous()
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        assert torch.equal(keeping(x), plain(x))
