"""The C kernels of convolutions on random structures, geometries, batches, instruction sets and threads, against dense
float64.

    python tests/oracles/test_native_conv.py 10000     (as many structures; under a sanitiser: docs/kernels.md)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from native import as_before, close, instruction_sets, random_mask
from sparseflow.core import BadValue
from sparseflow.sparse import Structure, native, parts
from sparseflow.sparse.native_conv import NativeConv

if not native.available():
    pytest.skip("installed without the C kernels", allow_module_level=True)

C = native.conv()
BATCHES = (1, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 128)
SIZES = ((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (2, 2), (2, 4))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with as_before(C):
        yield


def dense(x: Tensor, w: Tensor, g: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> tuple[Tensor, ...]:
    """(y, dx, dw) of activations with the batch last."""
    x, g = x.movedim(-1, 0), g.movedim(-1, 0)
    y = F.conv2d(x, w, None, stride, padding)
    dx = torch.nn.grad.conv2d_input(x.shape, w, g, stride, padding)
    return y.movedim(0, -1), dx.movedim(0, -1), torch.nn.grad.conv2d_weight(x, w.shape, g, stride, padding)


def check(
    mask: Tensor,
    size: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    structure = Structure.of(mask)
    out, into, kh, kw = mask.shape
    kernel = NativeConv(structure, (kh, kw), stride, padding)
    values, bias = torch.randn(structure.active, dtype=dtype), torch.randn(out, dtype=dtype)
    w = torch.zeros(mask.numel(), dtype=torch.float64)
    w[structure.flat()] = values.double()
    w = w.view(mask.shape)
    high, wide = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, (kh, kw), stride, strict=True))
    x, g = torch.randn(into, *size, batch, dtype=dtype), torch.randn(out, high, wide, batch, dtype=dtype)
    y, dx, dw = dense(x.double(), w, g.double(), stride, padding)
    scales = dense(x.double().abs(), w.abs(), g.double().abs(), stride, padding)
    close(kernel.forward(values, x, None, y.shape), y, scales[0])
    b = bias.double()[:, None, None, None]
    close(kernel.forward(values, x, bias, y.shape), y + b, scales[0] + b.abs())
    wanted = (dx, scales[1]), (dw.flatten()[structure.flat()], scales[2].flatten()[structure.flat()])
    for given in ((values, x), (values, None), (None, x)):
        found = kernel.backward(g, x.shape, *given)
        for result, asked, (expected, scale) in zip(found, given, wanted, strict=True):
            assert (result is None) == (asked is None)
            if result is not None:
                close(result, expected, scale)


def run(structures: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    sets = instruction_sets(C)
    for i in range(structures):
        C.use_isa(sets[i % len(sets)])
        torch.set_num_threads(rng.choice((1, 1, 2, 3)))
        kernel = rng.choice(SIZES)
        stride = rng.choice((1, 1, 1, 2, 3)), rng.choice((1, 1, 1, 2, 3))
        padding = rng.choice((0, 1, 1, 2)), rng.choice((0, 1, 1, 2))
        batch = rng.choice(BATCHES)
        if rng.random() < 0.2:  # long rows and no strides, so that the source may be read where it lies
            stride, batch = (1, 1), rng.choice((48, 64))
        size = tuple(max(rng.randint(1, 9), k - 2 * p) for k, p in zip(kernel, padding, strict=True))
        mask = random_mask(rng, (rng.choice((1, 2, 5, 8, 17)), rng.choice((1, 3, 4, 16, 19)), *kernel))
        check(mask, size, batch, rng.choice((torch.float32, torch.float64)), stride, padding)


@pytest.fixture
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads for the smallest product too."""
    monkeypatch.setattr("sparseflow.sparse.native_conv._MIN_WORK", 1)


@pytest.mark.usefixtures("_shared")
def test_random_structures():
    run(250)


def test_many_channels_in_blocks():
    torch.manual_seed(0)
    torch.set_num_threads(2)
    for stride in ((1, 1), (2, 2)):
        check(torch.rand(96, 200, 3, 3) < 0.02, (16, 16), 130, torch.float32, stride, (1, 1))


@pytest.mark.parametrize(("density", "stride"), [(0.03, 1), (0.5, 1), (0.03, 2)])
def test_results_of_four_mebibytes_go_past_the_caches(density, stride):
    """Read where it lies, packed, and with lines of several classes of columns."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    for isa in instruction_sets(C):
        C.use_isa(isa)
        for batch, dtype in ((64, torch.float32), (32, torch.float64)):
            check(torch.rand(16, 16, 3, 3) < density, (32, 32), batch, dtype, (stride, stride), (1, 1))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 1), (4, 5)])
def test_few_weights_on_long_rows(kernel, padding):
    """Images read where they lie: every border, more rows than a band, borders that no tap reaches the image from."""
    torch.manual_seed(0)
    for isa in instruction_sets(C):
        C.use_isa(isa)
        for size in ((11, 6), (3, 4), (4, 3)):
            check(torch.rand(5, 9, *kernel) < 0.3, size, 128, torch.float32, (1, 1), padding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "density"), [(16, 0.2), (70, 0.2), (128, 0.05)])
def test_threads_change_no_bit(dtype, batch, density, monkeypatch):
    torch.manual_seed(0)
    structure = Structure.of(torch.rand(12, 20, 3, 3) < density)
    kernel = NativeConv(structure, (3, 3), (1, 1), (1, 1))
    values, x, g = (torch.randn(n, dtype=dtype) for n in ((structure.active,), (20, 9, 7, batch), (12, 9, 7, batch)))
    real = parts.run
    monkeypatch.setattr(parts, "run", lambda call, fixed, work, least: real(call, fixed, work, 1))
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append((kernel.forward(values, x, None, g.shape), *kernel.backward(g, x.shape, values, x)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_border_refuses():
    structure = Structure.of(torch.rand(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3)
    kernel = NativeConv(structure, (3, 3), (1, 1), (1, 1))
    values, x, g = torch.randn(structure.active), torch.randn(4, 5, 7, 2), torch.randn(6, 5, 7, 2)
    for what, call in {
        "values must have shape": lambda: kernel.forward(values[1:].clone(), x, None, g.shape),
        "float32 and float64": lambda: kernel.forward(values, x.double(), None, g.shape),
        "x must have shape": lambda: kernel.forward(values, g, None, g.shape),
        "bias": lambda: kernel.forward(values, x, torch.zeros(5), g.shape),
        "g must": lambda: kernel.backward(x, x.shape, values, x),
        "on the CPU": lambda: kernel.forward(values, x.to("meta"), None, g.shape),
        "contiguous": lambda: kernel.forward(values, torch.randn(4, 7, 5, 2).transpose(1, 2), None, g.shape),
    }.items():
        with pytest.raises(BadValue, match=what):
            call()
    # The C side checks lengths again, whatever the wrapper does.
    with pytest.raises(ValueError, match="y needs"):
        kernel.forward(values, x, None, (6, 5, 6, 2))


@pytest.mark.parametrize(
    ("starts", "outs"),
    [
        ([0, 2], [1, 1]),  # duplicate
        ([0, 2], [2, 1]),  # falling
        ([0, 1], [5]),  # past the end
        ([0, 1], [-1]),
        ([0, 3], [0, 1]),  # more than there are
        ([1, 2], [0, 1]),
        ([0, 1, 2], [0, 1]),  # wrong length
    ],
)
def test_a_structure_that_is_none_is_refused(starts, outs):
    with pytest.raises(ValueError, match=r"must rise|needs"):
        NativeConv(Structure((5, 1), torch.tensor(starts).int(), torch.tensor(outs).int()), (1, 1), (1, 1), (0, 0))


def test_the_c_side_checks_lengths_and_geometry_itself():
    s = NativeConv(Structure.of(torch.ones(6, 4, 3, 3, dtype=torch.bool)), (3, 3), (1, 1), (1, 1))._c
    v, x, g = (native.buffer(torch.zeros(n)) for n in (216, 280, 420))
    one = (1, 1)
    for call in (
        lambda: s.forward(4, (2, 5, 7), one, one, v, x, None, (g[0], 419), 0, 1),
        lambda: s.forward(4, (2, 5, 7), one, one, v, x, x, g, 0, 1),
        lambda: s.forward(4, (2, 5, 8), one, one, v, x, None, g, 0, 1),
        lambda: s.forward(4, (2, 5, 7), (0, 1), one, v, x, None, g, 0, 1),
        lambda: s.forward(4, (2, 5, 7), one, (-1, 1), v, x, None, g, 0, 1),
        lambda: s.forward(4, (2, 1, 7), one, (0, 1), v, x, None, g, 0, 1),
        lambda: s.forward(4, (2**40, 2**20, 2**20), one, one, v, x, None, g, 0, 1),
        lambda: s.forward(2, (2, 5, 7), one, one, v, x, None, g, 0, 1),
        lambda: s.forward(4, (2, 5, 7), one, one, v, x, None, g, 1, 1),
        lambda: s.backward(4, (2, 5, 7), one, one, g, v, x, None, None, 0, 1),
        lambda: s.backward(4, (2, 5, 7), one, one, g, v, None, None, v, 0, 1),
        lambda: s.backward(4, (2, 5, 7), one, one, g, None, x, x, None, 0, 1),
    ):
        with pytest.raises(ValueError):
            call()


if __name__ == "__main__":
    run(int(sys.argv[1]))
    print(f"{sys.argv[1]} structures, instruction sets {', '.join(instruction_sets(C))}: all right")
