"""The compact convolution against torch's dense one, in every setting that converts, by every kernel."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from sparseflow.autodiff import weight_gradients
from sparseflow.core import BadValue, stand_ins
from sparseflow.sparse import CompactConv2d, compact, expand, native
from sparseflow.sparse.dense_conv import DenseConv
from sparseflow.sparse.layout import batch_last

SETTINGS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 without padding": {"kernel_size": 3},
    "stride 2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride beyond kernel": {"kernel_size": 2, "stride": 3},
    "1x1": {"kernel_size": 1},
    "1x1 stride 2": {"kernel_size": 1, "stride": 2},
    "5x5": {"kernel_size": 5, "padding": 2},
    "flat": {"kernel_size": (1, 3), "padding": (0, 2)},
    "uneven": {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0)},
    "same": {"kernel_size": (3, 5), "padding": "same"},
    "valid": {"kernel_size": 2, "padding": "valid"},
}
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
every_kernel = pytest.mark.parametrize("kernel", ["native", "dense"] if native.available() else ["dense"])
DENSITIES = (0.0, 0.05, 0.4, 1.0)


@pytest.fixture
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.getfixturevalue("kernel") == "dense":
        monkeypatch.setattr(native, "available", lambda: False)


def pair(
    setting: dict, density: float, *, bias: bool = True, channels: tuple[int, int] = (5, 7), dtype=torch.float64
) -> tuple[nn.Conv2d, CompactConv2d, Tensor]:
    """A convolution with zeros where the mask is False, the compact one that stands for it, and the mask."""
    torch.manual_seed(0)
    dense = nn.Conv2d(*channels, **setting, bias=bias, dtype=dtype)
    mask = torch.rand(dense.weight.shape) < density
    with torch.no_grad():
        dense.weight.mul_(mask)
    holder = nn.Sequential(copy.deepcopy(dense))
    assert compact(holder, {"0.weight": mask}).left_masked == {}
    layer = holder[0]
    assert isinstance(layer, CompactConv2d)
    return dense, layer, mask


def picked(weight: Tensor, mask: Tensor) -> Tensor:
    return weight.flatten(1).t()[mask.flatten(1).t()]


@pytest.mark.usefixtures("_kernel")
@every_kernel
@every_setting
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_dense_convolution(setting, density, bias, kernel):
    dense, layer, mask = pair(setting, density, bias=bias)
    assert isinstance(layer._kernel, DenseConv) == (kernel == "dense")
    for batch, height, width in ((1, 6, 5), (17, 5, 9), (40, 3, 5)):
        x = torch.randn(batch, 5, height, width, dtype=torch.float64, requires_grad=True)
        z = x.detach().clone().requires_grad_()
        if min(height, width) < 5 and dense.padding == (0, 0) and max(dense.kernel_size) > 3:
            continue
        y, expected = layer(x), dense(z)
        torch.testing.assert_close(y, expected)
        g = torch.randn_like(expected)
        layer.zero_grad()
        dense.zero_grad()
        y.backward(g)
        expected.backward(g)
        torch.testing.assert_close(x.grad, z.grad)
        torch.testing.assert_close(layer.values.grad, picked(dense.weight.grad, mask))
        if bias:
            torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


@pytest.mark.usefixtures("_kernel")
@every_kernel
@pytest.mark.parametrize("setting", [SETTINGS["3x3"], SETTINGS["uneven"]], ids=["3x3", "uneven"])
def test_derivatives_of_both_orders(setting, kernel):
    _, layer, _ = pair(setting, 0.3, channels=(2, 3))
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, (x,))

    inputs = (x, layer.values.detach().clone().requires_grad_(), layer.bias.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.usefixtures("_kernel")
@every_kernel
def test_float32_and_memory_formats(kernel):
    dense, layer, _ = pair(SETTINGS["3x3"], 0.3, dtype=torch.float32)
    x = torch.randn(9, 5, 6, 7)
    expected = dense(x)
    for same in (x, x.contiguous(memory_format=torch.channels_last), batch_last(x).movedim(-1, 0), x.flip(0).flip(0)):
        torch.testing.assert_close(layer(same), expected, rtol=1e-5, atol=1e-5)
    assert batch_last(layer(x)).data_ptr() == layer(x).data_ptr() or layer(x).movedim(0, -1).is_contiguous()
    torch.testing.assert_close(layer(x[0]), expected[0], rtol=1e-5, atol=1e-5)
    assert layer(x[:0]).shape == (0, 7, 6, 7)


def test_a_network_from_layer_to_layer():
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).double()
    names = [n for n, p in dense.named_parameters() if p.dim() > 1]
    masks = {name: torch.rand(dense.get_parameter(name).shape) < 0.4 for name in names}
    with torch.no_grad():
        for name, mask in masks.items():
            dense.get_parameter(name).mul_(mask)
    small = copy.deepcopy(dense)
    state = {k: v.clone() for k, v in dense.state_dict().items()}
    assert compact(small, masks).compacted == tuple(masks)
    assert small.state_dict().keys() == state.keys()
    batch = (torch.randn(12, 3, 7, 8, dtype=torch.float64), torch.arange(12) % 4)
    expected = weight_gradients(dense, nn.functional.cross_entropy, batch, list(masks))
    found = weight_gradients(small, nn.functional.cross_entropy, batch, list(masks))
    for name, g in found.items():
        torch.testing.assert_close(g, expected[name])
        assert g[~masks[name]].any()
    for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        torch.testing.assert_close(copied(batch[0]), dense(batch[0]))
    dense.load_state_dict(state)
    small.load_state_dict(state)
    for model in (dense, small):
        model.train()
        for _ in range(3):
            model(batch[0])
        model.eval()
    torch.testing.assert_close(small(batch[0]), dense(batch[0]))
    assert len(stand_ins(small)) == 3
    assert [type(m) for m in expand(small)] == [type(m) for m in dense]
    torch.testing.assert_close(small(batch[0]), dense(batch[0]))
    for key, value in dense.state_dict().items():
        torch.testing.assert_close(small.state_dict()[key], value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_is_the_same():
    _, layer, _ = pair(SETTINGS["stride 2"], 0.3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 5, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(compiled(x), layer(x))
    (expected,) = torch.autograd.grad(layer(x).square().sum(), [layer.values])
    (found,) = torch.autograd.grad(compiled(x).square().sum(), [layer.values])
    torch.testing.assert_close(found, expected)


def test_wrong_inputs_are_named():
    _, layer, _ = pair(SETTINGS["5x5"] | {"padding": 0}, 0.3)
    for x, word in (
        (torch.zeros(2, 4, 9, 9), "5, height"),
        (torch.zeros(2, 5), "batch"),
        (torch.zeros(1, 5, 3, 9), "larger"),
    ):
        with pytest.raises(BadValue, match=word):
            layer(x.double())
    with pytest.raises(BadValue, match="kh, kw"):
        CompactConv2d(torch.ones(2, 3, dtype=torch.bool))
