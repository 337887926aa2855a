"""The three products and the compact layer against dense float64 arithmetic."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from sparseflow.autodiff import weight_gradients
from sparseflow.core import BadValue, stand_ins, weight_shapes
from sparseflow.sparse import CompactLinear, Structure, compact, expand, native
from sparseflow.sparse.csr import CsrKernel
from sparseflow.sparse.kernel import register
from sparseflow.sparse.native_linear import NativeLinear
from sparseflow.sparse.products import both, mm, mtm, sd


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def scattered(shape: tuple[int, int], density: float, seed: int) -> Tensor:
    return torch.rand(shape, generator=generator(seed)) < density


def only(shape: tuple[int, int], *places: tuple[int, int]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


def with_gaps() -> Tensor:
    mask = scattered((6, 7), 0.5, 1)
    mask[[0, 3, 5]] = False
    mask[:, [0, 4, 6]] = False
    return mask


PATTERNS = {
    "empty rows and columns": with_gaps(),
    "one weight": only((5, 4), (3, 1)),
    "first and last": only((5, 4), (0, 0), (4, 3)),
    "one row": only((3, 6), (1, 0), (1, 2), (1, 5)),
    "one column": only((6, 3), (0, 1), (2, 1), (5, 1)),
    "full": torch.ones(4, 6, dtype=torch.bool),
    "none": torch.zeros(4, 3, dtype=torch.bool),
    "1 x 1": torch.ones(1, 1, dtype=torch.bool),
    "one output": scattered((1, 9), 0.5, 2),
    "one input": scattered((9, 1), 0.5, 3),
} | {
    f"random {out}x{into} at {d}": scattered((out, into), d, out + into)
    for out, into, d in ((8, 5, 0.3), (5, 8, 0.7), (33, 17, 0.1), (17, 64, 0.02), (40, 40, 0.9))
}

every_pattern = pytest.mark.parametrize("mask", PATTERNS.values(), ids=PATTERNS)
smaller = pytest.mark.parametrize("mask", [m for m in PATTERNS.values() if 0 < m.numel() <= 42])


def dense_of(values: Tensor, mask: Tensor) -> Tensor:
    """W by definition: values by input, then by output; zeros elsewhere."""
    return torch.zeros(mask.t().shape, dtype=values.dtype).masked_scatter(mask.t(), values).t()


def picked(dense: Tensor, mask: Tensor) -> Tensor:
    """The entries of a dense (out, in) tensor in the order of the values."""
    return dense.t()[mask.t()]


KERNELS = {"csr": CsrKernel} | ({"native": NativeLinear} if native.available() else {})
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


class Products:
    """The four products of one mask by one kernel."""

    def __init__(self, mask: Tensor, kernel: type[CsrKernel] | type[NativeLinear]) -> None:
        self.out, self.into = mask.shape
        self.kernel = kernel(Structure.of(mask))
        self.handle = register(self.kernel)

    def mm(self, values, x, bias=None):
        return mm(values, x, bias, self.handle, (self.out, x.shape[1]))

    def mtm(self, values, g):
        return mtm(values, g, self.handle, (self.into, g.shape[1]))

    def sd(self, g, x, active):
        return sd(g, x, self.handle, active)

    def both(self, values, x, g):
        return both(values, x, g, self.handle)


def problem(mask: Tensor, batch: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """values, x and g."""
    out, into = mask.shape
    values = randn(int(mask.sum()), seed=1, dtype=dtype)
    return values, randn(into, batch, seed=2, dtype=dtype), randn(out, batch, seed=3, dtype=dtype)


def check(p: Products, mask: Tensor, values: Tensor, x: Tensor, g: Tensor, bias: Tensor | None = None) -> None:
    W = dense_of(values, mask)
    torch.testing.assert_close(p.mm(values, x), W @ x)
    if bias is not None:
        torch.testing.assert_close(p.mm(values, x, bias), W @ x + bias[:, None])
    torch.testing.assert_close(p.mtm(values, g), W.t() @ g)
    torch.testing.assert_close(p.sd(g, x, values.numel()), picked(g @ x.t(), mask))
    dx, dvalues = p.both(values, x, g)
    torch.testing.assert_close(dx, W.t() @ g)
    torch.testing.assert_close(dvalues, picked(g @ x.t(), mask))


@every_kernel
@every_pattern
@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_are_the_dense_ones(mask, batch, dtype, kernel):
    check(Products(mask, kernel), mask, *problem(mask, batch, dtype), bias=randn(mask.shape[0], seed=4, dtype=dtype))


@every_kernel
@every_pattern
def test_products_take_any_layout(mask, kernel):
    values, x, g = problem(mask, 6)
    for layout in (
        lambda t: t.t().contiguous().t(),
        lambda t: torch.stack([t, -t], dim=2)[:, :, 0],
        lambda t: t.flip(0)[::2],
        lambda t: t[:1].expand(6, -1),
        lambda t: t[:, :1].expand(-1, t.shape[1]),
        lambda t: t.new_ones(()).expand(t.shape),
    ):
        check(Products(mask, kernel), mask, values, layout(x.t()).t(), layout(g.t()).t())


@every_kernel
def test_products_keep_and_do_not_alias_their_inputs(kernel):
    mask = PATTERNS["full"]
    values, x, g = inputs = problem(mask, 3)
    before = [t.clone() for t in inputs]
    p = Products(mask, kernel)
    for result in (p.mm(values, x), p.mtm(values, g), p.sd(g, x, values.numel()), *p.both(values, x, g)):
        result.fill_(7.0)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@every_kernel
@smaller
@pytest.mark.parametrize("op", ["mm", "mtm", "sd", "both"])
def test_first_and_second_derivatives(op, mask, kernel):
    values, x, g = problem(mask, 3)
    p = Products(mask, kernel)
    call, inputs = {
        "mm": (p.mm, (values, x, randn(mask.shape[0], seed=4))),
        "mtm": (p.mtm, (values, g)),
        "sd": (lambda g, x: p.sd(g, x, values.numel()), (g, x)),
        "both": (p.both, (values, x, g)),
    }[op]
    every = tuple(t.clone().requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(call, every)
    assert torch.autograd.gradgradcheck(call, every)
    for k in range(len(inputs)):  # where only one argument asks for a gradient
        alone = tuple(t.requires_grad_() if i == k else t for i, t in enumerate(t.clone() for t in inputs))
        assert torch.autograd.gradcheck(call, alone)


@pytest.mark.parametrize("mask", [PATTERNS["empty rows and columns"], PATTERNS["one weight"]])
def test_products_are_well_formed_custom_operators(mask):
    values, x, g = problem(mask, 3)
    p = Products(mask, next(iter(KERNELS.values())))
    ops = torch.ops.sparseflow
    for op, tensors, rest in (
        (ops.mm, (values, x, randn(mask.shape[0], seed=4)), (p.handle, (p.out, 3))),
        (ops.mtm, (values, g), (p.handle, (p.into, 3))),
        (ops.sd, (g, x), (p.handle, values.numel())),
        (ops.both, (values, x, g), (p.handle,)),
    ):
        torch.library.opcheck(op, (*(t.clone().requires_grad_() for t in tensors), *rest))
        torch.library.opcheck(op, (*tensors, *rest))


def test_a_structure_that_changed_after_the_forward_pass_is_noticed():
    mask = PATTERNS["random 8x5 at 0.3"]
    values, x, _ = problem(mask, 3)
    p = Products(mask, next(iter(KERNELS.values())))
    y = p.mm(values.requires_grad_(), x)
    p.handle.copy_(register(p.kernel))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_graph_outlives_its_layer():
    x = randn(4, 5).requires_grad_()
    y = pair(PATTERNS["random 8x5 at 0.3"])[1](x)
    y.sum().backward()
    assert x.grad is not None


# The layer -----------------------------------------------------------------------------------------------------------


def pair(mask: Tensor, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, CompactLinear]:
    """A linear layer with zeros where the mask is False, and the compact layer that stands for it."""
    out, into = mask.shape
    dense = nn.Linear(into, out, bias=bias, dtype=dtype)
    with torch.no_grad():
        dense.weight.copy_(randn(out, into, seed=5) * mask)
        if bias:
            dense.bias.copy_(randn(out, seed=6))
    holder = nn.Sequential(copy.deepcopy(dense))
    compact(holder, {"0.weight": mask})
    assert isinstance(holder[0], CompactLinear)
    return dense, holder[0]


@every_pattern
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (2, 1, 4), ()])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_is_the_linear_layer(mask, shape, bias):
    dense, layer = pair(mask, bias=bias)
    x = randn(*shape, mask.shape[1]).requires_grad_()
    z = x.detach().clone().requires_grad_()
    y, expected = layer(x), dense(z)
    torch.testing.assert_close(y, expected)
    weights = randn(*y.shape, seed=9)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, z.grad)
    torch.testing.assert_close(layer.values.grad, picked(dense.weight.grad, mask))
    if bias:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


@every_pattern
def test_layer_takes_expanded_gradients_and_strided_inputs(mask):
    dense, layer = pair(mask)
    x = randn(mask.shape[1], 8).t()
    for loss in (
        lambda y: y.sum(),
        lambda y: y.mean(),
        lambda y: y[:, 0].sum(),
        lambda y: y.t().contiguous().sum(1)[0],
    ):
        for module in (dense, layer):
            module.zero_grad()
            loss(module(x)).backward()
        torch.testing.assert_close(layer.values.grad, picked(dense.weight.grad, mask))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_layer_computes_in_its_own_precision(dtype, rtol):
    dense, layer = pair(PATTERNS["random 33x17 at 0.1"], dtype=dtype)
    x = randn(20, 17, dtype=dtype)
    y = layer(x)
    assert y.dtype is dtype
    assert layer.values.dtype is dtype
    torch.testing.assert_close(y, dense(x), rtol=rtol, atol=rtol)


def test_layer_takes_an_empty_batch():
    _, layer = pair(PATTERNS["full"])
    y = layer(torch.empty(0, 6, dtype=torch.float64))
    assert y.shape == (0, 4)
    y.sum().backward()
    assert not layer.values.grad.any()


@every_pattern
def test_layer_tells_its_mask_and_weight(mask):
    dense, layer = pair(mask)
    assert torch.equal(layer.active_mask(), mask)
    assert layer.active_mask().dtype is torch.bool
    assert torch.equal(layer.dense_weight(), dense.weight)
    assert not layer.dense_weight().requires_grad
    assert layer.values.shape == (mask.sum(),)
    assert torch.equal(layer.values, picked(dense.weight, mask))
    by_row = torch.arange(1.0, mask.sum() + 1)
    layer.set_active(by_row)
    assert torch.equal(layer.dense_weight()[mask], by_row.double())
    assert torch.equal(layer.dense_weight() != 0, mask)
    with pytest.raises(BadValue, match="active"):
        layer.set_active(torch.zeros(int(mask.sum()) + 1))


# Second order through a network ------------------------------------------------------------------------------------


def networks(activation: type[nn.Module] = nn.Tanh) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A masked network as a dense one with zeros, its compact form, and the masks."""
    dense = nn.Sequential(
        nn.Linear(6, 9, bias=False), activation(), nn.Linear(9, 8), activation(), nn.Linear(8, 3, bias=False)
    ).double()
    masks = {name: scattered(tuple(s), 0.4, k) for k, (name, s) in enumerate(weight_shapes(dense).items())}
    with torch.no_grad():
        for k, p in enumerate(dense.parameters()):
            p.copy_(randn(*p.shape, seed=20 + k) * 0.7)
        for name, mask in masks.items():
            dense.get_parameter(name).mul_(mask)
    small = compact(copy.deepcopy(dense), masks).model
    assert len(stand_ins(small)) == 3
    return dense, small, masks


def loss_on(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(randn(12, 6, seed=4)), torch.arange(12) % 3)


def test_hessian_vector_product_of_a_compact_network():
    dense, small, masks = networks()
    weights = {name: dense.get_parameter(name) for name in masks}
    directions = {name: randn(*mask.shape, seed=k) * mask for k, (name, mask) in enumerate(masks.items())}
    g = torch.autograd.grad(loss_on(dense), list(weights.values()), create_graph=True)
    slope = sum((a * b).sum() for a, b in zip(g, directions.values(), strict=True))
    expected = torch.autograd.grad(slope, list(weights.values()))

    values = [layer.values for layer in stand_ins(small).values()]
    g = torch.autograd.grad(loss_on(small), values, create_graph=True)
    slope = sum((a * picked(d, m)).sum() for a, d, m in zip(g, directions.values(), masks.values(), strict=True))
    found = torch.autograd.grad(slope, values)
    for h, reference, mask in zip(found, expected, masks.values(), strict=True):
        assert reference[mask].abs().max() > 1e-4
        torch.testing.assert_close(h, picked(reference, mask), rtol=1e-10, atol=1e-13)


def test_hessian_of_a_compact_layer_is_the_dense_ones_rows_and_columns():
    mask = scattered((3, 4), 0.5, 8)
    x = randn(5, 4)
    p = Products(mask, next(iter(KERNELS.values())))

    def loss(y: Tensor) -> Tensor:
        return (y.tanh() ** 3).sum()

    values = randn(int(mask.sum()), seed=1)
    found = torch.autograd.functional.hessian(lambda v: loss(p.mm(v, x.t())), values)
    whole = torch.autograd.functional.hessian(lambda W: loss(x @ W.t()), dense_of(values, mask))
    flat = Structure.of(mask).flat()
    torch.testing.assert_close(found, whole.flatten(2).flatten(0, 1)[flat][:, flat])


# torch.compile -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_is_the_same():
    _, small, _ = networks()
    compiled = torch.compile(small, backend="aot_eager", fullgraph=True)
    for batch in (4, 7):
        x = randn(batch, 6)
        eager, fast = small(x), compiled(x)
        torch.testing.assert_close(fast, eager, rtol=1e-12, atol=1e-14)
        small.zero_grad()
        eager.square().sum().backward()
        expected = [p.grad.clone() for p in small.parameters()]
        small.zero_grad()
        fast.square().sum().backward()
        for p, g in zip(small.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-12, atol=1e-14)


# Tap: the dense gradient -------------------------------------------------------------------------------------------


@every_pattern
def test_tapped_gradient_is_that_of_the_dense_weight(mask):
    """dY^T X, masked entries included (001 eq. 3.5)."""
    dense, layer = pair(mask)
    for x in (randn(7, mask.shape[1]), randn(2, 3, mask.shape[1])):
        dense.zero_grad()
        dense(x).tanh().square().sum().backward()
        with layer.tapped() as leaf:
            y = layer(x)
            (g,) = torch.autograd.grad(y.tanh().square().sum(), [leaf])
        dY = 2 * dense(x).tanh() * (1 - dense(x).tanh() ** 2)
        torch.testing.assert_close(g, dY.flatten(0, -2).t() @ x.flatten(0, -2))
        torch.testing.assert_close(g, dense.weight.grad)


def test_tap_leaves_nothing_behind():
    _, layer = pair(PATTERNS["empty rows and columns"])
    x = randn(4, 7)
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    before = layer(x)
    with layer.tapped() as leaf:
        assert leaf.shape == layer.weight_shape
        assert torch.equal(layer(x), before)
    with contextlib.suppress(ZeroDivisionError), layer.tapped():
        raise ZeroDivisionError
    assert layer._tap is None
    y = layer(x)
    assert torch.equal(y, before)
    y.sum().backward()
    assert leaf.grad is None
    assert layer.values.grad is not None
    assert {k: torch.equal(v, state[k]) for k, v in layer.state_dict().items()} == dict.fromkeys(state, True)
    assert [name for name, _ in layer.named_parameters()] == ["values", "bias"]
    pickle.dumps(layer)


def test_tap_does_not_change_the_other_gradients():
    _, small, masks = networks()
    values = [layer.values for layer in stand_ins(small).values()]
    expected = torch.autograd.grad(loss_on(small), values)
    names = list(masks)
    weight_gradients(
        small, lambda out, y: nn.functional.cross_entropy(out, y), (randn(4, 6), torch.arange(4) % 3), names
    )
    found = torch.autograd.grad(loss_on(small), values)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(p.grad is None for p in small.parameters())


def test_dense_gradients_of_a_compact_network():
    """Against autograd on the dense network, by name, for a layer that is used twice as well."""
    dense, small, masks = networks()
    batch = (randn(12, 6, seed=4), torch.arange(12) % 3)

    def twice(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y)

    expected = torch.autograd.grad(loss_on(dense), [dense.get_parameter(name) for name in masks])
    found = weight_gradients(small, twice, batch, list(masks))
    for (name, g), reference in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(g, reference, rtol=1e-11, atol=1e-14, msg=name)
        assert g[~masks[name]].any()

    square_dense, square = pair(scattered((5, 5), 0.4, 3))
    x = randn(4, 5)
    (reference,) = torch.autograd.grad(square_dense(square_dense(x).tanh()).sum(), [square_dense.weight])
    with square.tapped() as leaf:
        (g,) = torch.autograd.grad(square(square(x).tanh()).sum(), [leaf])
    torch.testing.assert_close(g, reference)


# State, copies, conversion ------------------------------------------------------------------------------------------


def test_state_dict_is_the_dense_layers():
    dense, layer = pair(PATTERNS["random 8x5 at 0.3"])
    state = layer.state_dict()
    assert state.keys() == dense.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in dense.state_dict().items())
    plain = nn.Linear(5, 8, dtype=torch.float64)
    plain.load_state_dict(state)
    assert torch.equal(plain.weight, dense.weight)

    fresh = pair(PATTERNS["random 8x5 at 0.3"])[1]
    fresh.set_active(torch.zeros(fresh.values.numel()))
    kept = fresh.values
    assert str(fresh.load_state_dict(state)) == "<All keys matched successfully>"
    assert fresh.values is kept
    assert torch.equal(fresh.values, layer.values)
    assert torch.equal(fresh.bias, layer.bias)
    # The emitted tensors are the caller's to change.
    state["weight"].zero_()
    assert layer.values.any()


def test_state_dict_of_a_network_round_trips_through_a_file():
    dense, small, masks = networks()
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state.keys() == dense.state_dict().keys()
    other = compact(networks()[0], masks).model
    for layer in stand_ins(other).values():
        layer.set_active(torch.zeros_like(layer.values))
    other.load_state_dict(state)
    assert torch.equal(loss_on(other), loss_on(small))


def test_loading_a_weight_that_the_mask_forbids_is_an_error():
    mask = PATTERNS["random 8x5 at 0.3"]
    _, layer = pair(mask)
    before = layer.values.clone()
    state = layer.state_dict()
    row, column = (~mask).nonzero()[0]
    for value in (1e-30, torch.nan, torch.inf):
        state["weight"] = layer.dense_weight()
        state["weight"][row, column] = value
        with pytest.raises(RuntimeError, match="nonzero weights where the mask has none"):
            layer.load_state_dict(state)
        assert torch.equal(layer.values, before)
    # An active weight of exactly 0 is no excuse for one outside.
    state["weight"] = torch.zeros_like(state["weight"])
    layer.load_state_dict(state)
    state["weight"][row, column] = 1.0
    with pytest.raises(RuntimeError, match="1 nonzero"):
        layer.load_state_dict(state)


def test_loading_says_what_is_wrong():
    _, layer = pair(PATTERNS["random 8x5 at 0.3"])
    state = layer.state_dict()
    with pytest.raises(RuntimeError, match=r"\(8, 4\).*\(8, 5\)"):
        layer.load_state_dict({**state, "weight": torch.zeros(8, 4)})
    with pytest.raises(RuntimeError, match="Missing"):
        layer.load_state_dict({"bias": state["bias"]})
    with pytest.raises(RuntimeError, match="Unexpected"):
        layer.load_state_dict({**state, "other": torch.zeros(1)})


def test_loading_without_strictness_takes_what_is_there():
    """As `nn.Linear` does: a state with a bias alone sets the bias."""
    dense, layer = pair(PATTERNS["random 8x5 at 0.3"])
    part = {"bias": torch.full((8,), 3.0, dtype=torch.float64)}
    for module in (dense, layer):
        assert module.load_state_dict(part, strict=False).missing_keys == ["weight"]
        assert torch.equal(module.bias, part["bias"])
    assert dense.load_state_dict({}, strict=False) == layer.load_state_dict({}, strict=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_the_same_and_apart(copied):
    _, small, masks = networks()
    twin = copied(small)
    assert torch.equal(loss_on(twin), loss_on(small))
    for name, layer in stand_ins(twin).items():
        assert torch.equal(layer.active_mask(), masks[name])
        assert layer.values is not stand_ins(small)[name].values
        layer.set_active(torch.zeros_like(layer.values))
    assert not torch.equal(loss_on(twin), loss_on(small))


def test_compact_and_expand_round_trip():
    dense, small, masks = networks(nn.PReLU)
    small[2].eval()
    small[4].values.requires_grad_(False)
    state = {key: value.clone() for key, value in small.state_dict().items()}
    expected = loss_on(small)
    plain = expand(small)
    assert plain is small
    assert not stand_ins(plain)
    assert [type(m) for m in plain] == [type(m) for m in dense]
    assert not plain[2].training
    assert not plain[4].weight.requires_grad
    assert plain[0].weight.requires_grad
    assert plain.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    torch.testing.assert_close(loss_on(plain), expected)
    again = compact(plain, masks).model
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert not again[2].training
    assert not again[4].values.requires_grad


def test_compact_drops_what_the_mask_forbids():
    layer = nn.Sequential(nn.Linear(4, 3, bias=False))
    mask = scattered((3, 4), 0.5, 1)
    weight = layer[0].weight.detach().clone()
    compact(layer, {"0.weight": mask})
    assert torch.equal(layer[0].dense_weight(), weight * mask)


# What has no compact form -------------------------------------------------------------------------------------------


def all_true(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in weight_shapes(model).items()}


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def used_twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def tied_to_an_embedding() -> nn.Module:
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 4), "output": nn.Linear(4, 7)})
    model["output"].weight = model["embedding"].weight
    return model


def parametrised() -> nn.Module:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)))


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def parametrised_bias() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    parametrize.register_parametrization(model[0], "bias", Halved())
    return model


class Scaled(nn.Linear):
    """A subclass may do anything in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


OBSTACLES = {
    "tied": tied,
    "tied to an embedding": tied_to_an_embedding,
    "one layer used twice": used_twice,
    "parametrised": parametrised,
    "parametrised bias": parametrised_bias,
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "transformer layer": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "grouped convolution": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)),
    "dilated convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2)),
    "circular convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
    "uneven padding": lambda: nn.Sequential(nn.Conv2d(3, 4, 2, padding="same")),
    "one-dimensional convolution": lambda: nn.Sequential(nn.Conv1d(3, 4, 3)),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3)),
    "embedding": lambda: nn.Sequential(nn.Embedding(5, 3)),
    "bilinear": lambda: nn.Sequential(nn.Bilinear(2, 3, 4)),
    "subclass": lambda: nn.Sequential(Scaled(3, 4)),
}


@pytest.mark.parametrize("make", OBSTACLES.values(), ids=OBSTACLES)
def test_what_cannot_be_compact_stays_masked_and_says_why(make):
    model = make()
    masks = all_true(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = dict(model.named_modules(remove_duplicate=False))
    done = compact(model, masks)
    assert done.model is model
    assert done.compacted == ()
    assert done.left_masked.keys() == masks.keys()
    assert all(len(reason) > 5 for reason in done.left_masked.values())
    assert dict(model.named_modules(remove_duplicate=False)) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_reasons_name_the_obstacle():
    for name, word in (("tied", "tied"), ("parametrised", "arametri"), ("grouped convolution", "groups")):
        model = OBSTACLES[name]()
        assert all(word in reason for reason in compact(model, all_true(model)).left_masked.values())
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    done = compact(model, all_true(model), only=["1.weight"])
    assert done.compacted == ("1.weight",)
    assert done.left_masked == {"0.weight": "masked by choice"}
    again = compact(model, all_true(model))
    assert again.compacted == ("0.weight",)
    assert again.left_masked == {"1.weight": "already compact"}


def test_a_mask_that_fits_nothing_is_an_error():
    model = nn.Sequential(nn.Linear(3, 4))
    for masks in (
        {"1.weight": torch.ones(4, 3, dtype=torch.bool)},
        {"0.weight": torch.ones(3, 4, dtype=torch.bool)},
        {"0.weight": torch.ones(4, 3)},
        {"0.bias": torch.ones(4, dtype=torch.bool)},
    ):
        with pytest.raises(BadValue, match="mask"):
            compact(model, masks)
    with pytest.raises(BadValue, match="Sequential"):
        compact(nn.Linear(3, 4), {"weight": torch.ones(4, 3, dtype=torch.bool)})
