"""The C kernels on random structures, block sizes, batches, instruction sets and threads, against dense float64.

python tests/oracles/test_native_linear.py 10000     (as many structures; under a sanitiser: docs/kernels.md)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from native import as_before, close, instruction_sets, random_mask
from sparseflow.core import BadValue
from sparseflow.sparse import Structure, native, native_linear, parts
from sparseflow.sparse.native_linear import NativeLinear

if not native.available():
    pytest.skip("installed without the C kernels", allow_module_level=True)

C = native.linear()
BATCHES = (1, 3, 15, 16, 17, 32, 33, 48, 63, 64, 65, 100, 128, 130, 192, 512)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with as_before(C):
        yield


OUTS = (1, 2, 7, 16, 17, 40, 64, 70, 129)
INTOS = (1, 3, 16, 31, 33, 64, 65, 100, 300)


def check(mask: Tensor, batch: int, dtype: torch.dtype, blocks: tuple[int, int, int, int] | None) -> None:
    structure = Structure.of(mask)
    kernel = NativeLinear(structure, blocks)
    out, into = mask.shape
    values, bias = torch.randn(structure.active, dtype=dtype), torch.randn(out, dtype=dtype)
    x, g = torch.randn(into, batch, dtype=dtype), torch.randn(out, batch, dtype=dtype)
    w = torch.zeros(out * into, dtype=torch.float64)
    w[structure.flat()] = values.double()
    w, X, G = w.view(out, into), x.double(), g.double()
    y_scale = w.abs() @ X.abs()
    close(kernel.forward(values, x, None, (out, batch)), w @ X, y_scale)
    close(kernel.forward(values, x, bias, (out, batch)), w @ X + bias.double()[:, None], y_scale + bias.abs()[:, None])
    want = w.t() @ G, (G @ X.t()).flatten()[structure.flat()]
    scales = w.abs().t() @ G.abs(), (G.abs() @ X.abs().t()).flatten()[structure.flat()]
    for given in ((values, x), (values, None), (None, x)):
        found = kernel.backward(g, (into, batch), *given)
        for result, asked, expected, scale in zip(found, given, want, scales, strict=True):
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
        blocks = None if rng.random() < 0.3 else tuple(rng.choice((16, 17, 48, 64, 1000)) for _ in range(4))
        mask = random_mask(rng, (rng.choice(OUTS), rng.choice(INTOS)))
        check(mask, rng.choice(BATCHES), rng.choice((torch.float32, torch.float64)), blocks)


@pytest.fixture
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads for the smallest product too."""
    monkeypatch.setattr("sparseflow.sparse.native_linear._MIN_WORK", 1)


@pytest.mark.usefixtures("_shared")
def test_random_structures():
    run(300)


@pytest.mark.parametrize("isa", instruction_sets(C))
@pytest.mark.parametrize("density", [0.4, 1.0])
def test_operands_read_in_place_and_copied(isa, density):
    """Below 64 weights to a feature of the gathered operand it is read where it lies, if tiles are full; and where a
    pass reads the whole batch."""
    C.use_isa(isa)
    torch.manual_seed(0)
    mask = torch.rand(100, 90) < density
    assert (mask.sum() < 64 * 90) == (density < 1)
    for batch in (64, 128, 256):
        check(mask, batch, torch.float32, None)
        check(mask, batch, torch.float64, (48, 32, 48, 32))


@pytest.mark.parametrize("features", [1, 10, 64, 100, 512, 784, 3072, 3076, 20_000])
@pytest.mark.parametrize("density", [1e-6, 0.001, 0.01, 0.05, 0.2, 1.0])
def test_blocks_cut_features_evenly(features, density):
    """No last part is small, none exceeds 16-bit offsets, and threads have an even number of parts to share."""
    out, into, back_in, back_out = native_linear.default_blocks(features, features, int(density * features**2))
    for size in (out, into, back_in, back_out):
        assert 16 <= size <= 8192
        if size < features:
            assert (features - 1) % size + 1 >= size - -(-features // size)
    for shared in (out, back_in):
        assert shared >= features or -(-features // shared) % 2 == 0


def test_a_large_layer():
    torch.manual_seed(0)
    torch.set_num_threads(2)
    check(torch.rand(1500, 2000) < 0.03, 130, torch.float32, None)


@pytest.mark.usefixtures("_shared")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_change_no_bit(dtype, monkeypatch):
    torch.manual_seed(0)
    structure = Structure.of(torch.rand(300, 500) < 0.1)
    kernel = NativeLinear(structure, (64, 64, 64, 64))
    values, x, g = (torch.randn(n, dtype=dtype) for n in ((structure.active,), (500, 70), (300, 70)))
    results, seen = [], []
    real = parts.run
    monkeypatch.setattr(parts, "run", lambda call, fixed, work, least: (seen.append(least), real(call, fixed, work, 1)))
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append((kernel.forward(values, x, None, (300, 70)), *kernel.backward(g, (500, 70), values, x)))
    assert len(seen) == 6
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_error_on_another_thread_is_raised():
    torch.set_num_threads(2)

    def fails(part: int, parts: int) -> None:
        if part:
            raise ValueError("part 1")

    with pytest.raises(ValueError, match="part 1"):
        parts.run(fails, (), 10, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", instruction_sets(C))
def test_turning_is_transposing(isa, dtype):
    C.use_isa(isa)
    for rows, cols in ((1, 1), (1, 40), (40, 1), (16, 16), (17, 33), (128, 300), (300, 128), (65, 130), (5, 1000)):
        x = torch.randn(rows, cols, dtype=dtype)
        y = torch.full((cols, rows), torch.nan, dtype=dtype)
        C.turn(x.element_size(), rows, cols, native.buffer(x), native.buffer(y))
        assert torch.equal(y, x.t())


def test_the_border_refuses():
    structure = Structure.of(torch.rand(20, 30, generator=torch.Generator().manual_seed(0)) < 0.3)
    kernel = NativeLinear(structure)
    values, x, g = torch.randn(structure.active), torch.randn(30, 5), torch.randn(20, 5)
    for what, call in {
        "shape": lambda: kernel.forward(values[1:].clone(), x, None, (20, 5)),
        "float32 and float64": lambda: kernel.forward(values, x.double(), None, (20, 5)),
        "must be torch.float16": lambda: kernel.forward(values.half(), x.half(), None, (20, 5)),
        "x must have shape": lambda: kernel.forward(values, g, None, (20, 5)),
        "bias": lambda: kernel.forward(values, x, torch.zeros(19), (20, 5)),
        "g must": lambda: kernel.backward(x, (30, 5), values, x),
        "on the CPU": lambda: kernel.forward(values, x.to("meta"), None, (20, 5)),
        "contiguous": lambda: kernel.forward(values, torch.randn(5, 30).t(), None, (20, 5)),
    }.items():
        with pytest.raises(BadValue, match=what):
            call()


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
        ([0, -1], []),
    ],
)
def test_a_structure_that_is_none_is_refused(starts, outs):
    with pytest.raises(ValueError, match=r"must rise|needs"):
        NativeLinear(Structure((5, 1), torch.tensor(starts).int(), torch.tensor(outs, dtype=torch.int32)))
    with pytest.raises(ValueError, match="must rise"):
        NativeLinear(Structure((5, 2), torch.tensor([0, 9, 2]).int(), torch.tensor([0, 1]).int()))


def test_the_c_side_checks_lengths_itself():
    structure = Structure.of(torch.ones(20, 30, dtype=torch.bool))
    s = NativeLinear(structure)._c
    v, x, g, y = (native.buffer(torch.zeros(n)) for n in (600, 150, 100, 100))
    short = (y[0], 99)
    for call in (
        lambda: s.forward(4, 5, v, x, None, short, 0, 1),
        lambda: s.forward(4, 5, v, x, short, y, 0, 1),
        lambda: s.forward(4, 6, v, x, None, y, 0, 1),
        lambda: s.forward(4, 0, v, x, None, y, 0, 1),
        lambda: s.forward(2, 5, v, x, None, y, 0, 1),
        lambda: s.forward(4, 5, v, x, None, y, 1, 1),
        lambda: s.forward(4, 5, v, x, None, y, 0, 0),
        lambda: s.forward(4, 5, None, x, None, y, 0, 1),
        lambda: s.backward(4, 5, g, v, x, None, None, 0, 1),
        lambda: s.backward(4, 5, g, v, None, None, v, 0, 1),
        lambda: s.backward(4, 5, g, None, x, x, None, 0, 1),
        lambda: s.backward(4, 5, g, v, x, g, v, 0, 1),
        lambda: C.turn(4, 3, 7, x, y),
        lambda: C.turn(4, 0, 7, x, y),
        lambda: C.turn(4, 2**62, 2**62, x, y),
        lambda: C.use_isa("neon"),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError):
        s.forward(4, 5, [1], x, None, y, 0, 1)


if __name__ == "__main__":
    run(int(sys.argv[1]))
    print(f"{sys.argv[1]} structures, instruction sets {', '.join(instruction_sets(C))}: all right")
