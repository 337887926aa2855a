"""The kernels against dense float64 references: shapes, patterns, instruction sets, and the border's refusals.

    python test_kern.py [structures] [--seed N]      (also collected by pytest, with few structures)

Under the address sanitiser: `./build.sh asan`, then
    ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(gcc -print-file-name=libasan.so) PYTHONPATH=asan python test_kern.py 300
"""

from __future__ import annotations

import argparse
import random

import _kernels
import torch
from kern import Plan, pack, panels_shape, unpack
from torch import Tensor

BATCHES = (1, 3, 15, 16, 17, 32, 33, 48, 63, 64, 65, 100, 128, 130, 192, 512)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def isas() -> list[str]:
    found = []
    best = _kernels.isa()
    for name in ("portable", "avx2", "avx512"):
        try:
            _kernels.use_isa(name)
        except ValueError:
            continue
        found.append(name)
    _kernels.use_isa(best)
    return found


def random_mask(rng: random.Random) -> Tensor:
    n_out, n_in = rng.choice((1, 2, 7, 16, 17, 40, 64, 70, 129)), rng.choice((1, 3, 16, 31, 33, 64, 65, 100, 300))
    kind = rng.randrange(6)
    if kind == 0:
        return torch.ones(n_out, n_in, dtype=torch.bool)
    mask = torch.rand(n_out, n_in) < rng.choice((0.0, 0.01, 0.05, 0.2, 0.5, 0.9))
    if kind == 1:  # one active weight
        mask.zero_()
        mask[rng.randrange(n_out), rng.randrange(n_in)] = True
    elif kind == 2:  # one full row, one full column, the rest as drawn
        mask[rng.randrange(n_out)] = True
        mask[:, rng.randrange(n_in)] = True
    elif kind == 3:  # empty rows and columns
        mask[torch.rand(n_out) < 0.5] = False
        mask[:, torch.rand(n_in) < 0.5] = False
    return mask


def close(got: Tensor, want: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
    """Within the tolerance of the sum of the magnitudes that were added: what rounding is relative to."""
    assert got.dtype is dtype
    assert got.shape == want.shape
    error = (got.double() - want).abs()
    bound = TOLERANCE[dtype] * scale + (1e-30 if dtype is torch.float32 else 1e-300)
    assert bool((error <= bound).all()), float((error / bound).max())


def check(mask: Tensor, batch: int, dtype: torch.dtype, blocks: tuple[int, int, int, int] | None, threads: int) -> None:
    n_out, n_in = mask.shape
    plan = Plan.of(mask, blocks)
    values, bias = torch.randn(plan.active, dtype=dtype), torch.randn(n_out, dtype=dtype)
    x, g = torch.randn(batch, n_in, dtype=dtype), torch.randn(batch, n_out, dtype=dtype)
    weight = plan.dense(values)
    assert torch.equal(weight != 0, mask) or plan.active == 0 or bool((values == 0).any())
    assert torch.equal(weight[mask][plan.order], values), "order maps row-major to the plan's"
    w, x64, g64, b64 = weight.double(), x.double(), g.double(), bias.double()

    xp, gp = pack(x), pack(g)
    assert torch.equal(unpack(xp, batch), x)
    assert torch.equal(xp, pack(x.t().contiguous(), batch_major=False))
    assert torch.equal(xp, pack(x.t().contiguous().t())), "a transposed view packs alike"
    assert torch.equal(unpack(xp, batch, batch_major=False), x.t())
    lanes = xp.transpose(1, 2).reshape(-1, n_in)
    assert torch.equal(lanes[:batch], x)
    assert not lanes[batch:].any()

    y = plan.forward(values, xp, batch, threads=threads)
    close(unpack(y, batch), x64 @ w.t(), x64.abs() @ w.abs().t(), dtype)
    y = plan.forward(values, xp, batch, bias, threads=threads)
    close(unpack(y, batch), x64 @ w.t() + b64, x64.abs() @ w.abs().t() + b64.abs(), dtype)
    assert not y.transpose(1, 2).reshape(-1, n_out)[batch:].any(), "padding stays zero"
    want_dx, dx_scale = g64 @ w, g64.abs() @ w.abs()
    want_dv = (g64.t() @ x64).flatten()[plan.flat]
    dv_scale = (g64.abs().t() @ x64.abs()).flatten()[plan.flat]
    for dx_wanted, dv_wanted in ((True, True), (True, False), (False, True)):
        dx, dv = plan.backward(values, xp, gp, batch, dx=dx_wanted, dv=dv_wanted, threads=threads)
        assert (dx is not None, dv is not None) == (dx_wanted, dv_wanted)
        if dx is not None:
            close(unpack(dx, batch), want_dx, dx_scale, dtype)
        if dv is not None:
            close(dv, want_dv, dv_scale, dtype)


def run(structures: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    sets = isas()
    best = _kernels.isa()
    for i in range(structures):
        _kernels.use_isa(sets[i % len(sets)])
        blocks = None if rng.random() < 0.3 else tuple(rng.choice((16, 17, 48, 64, 1000)) for _ in range(4))
        dtype = rng.choice((torch.float32, torch.float64))
        check(random_mask(rng), rng.choice(BATCHES), dtype, blocks, rng.choice((1, 1, 2, 3)))
    _kernels.use_isa(best)


def test_random_structures() -> None:
    run(200)


def test_large_layer() -> None:
    torch.manual_seed(0)
    check(torch.rand(1500, 2000) < 0.03, 130, torch.float32, None, 2)


def test_deterministic() -> None:
    torch.manual_seed(0)
    plan = Plan.of(torch.rand(300, 500) < 0.1, (64, 64, 64, 64))
    values, x, g = torch.randn(plan.active), pack(torch.randn(70, 500)), pack(torch.randn(70, 300))
    first = plan.forward(values, x, 70), *plan.backward(values, x, g, 70)
    again = plan.forward(values, x, 70, threads=3), *plan.backward(values, x, g, 70, threads=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "threads change no bit"


def refuses(what: str, call) -> None:  # type: ignore[no-untyped-def]
    try:
        call()
    except (ValueError, TypeError):
        return
    raise AssertionError(f"{what} was accepted")


def test_border() -> None:
    plan = Plan.of(torch.rand(20, 30) < 0.3)
    values, x, g = torch.randn(plan.active), pack(torch.randn(5, 30)), pack(torch.randn(5, 20))
    twice = torch.stack([values, values], 1)[:, 0]  # not contiguous: copied
    assert torch.equal(plan.forward(twice, x, 5), plan.forward(values, x, 5))
    refuses("short values", lambda: plan.forward(values[1:], x, 5))
    refuses("mixed types", lambda: plan.forward(values, x.double(), 5))
    refuses("half", lambda: plan.forward(values.half(), x.half(), 5))
    refuses("another batch", lambda: plan.forward(values, x, 17))
    refuses("the other side's panels", lambda: plan.backward(values, x, x, 5))
    refuses("meta", lambda: plan.forward(values, x.to("meta"), 5))
    refuses("an empty matrix", lambda: pack(torch.empty(0, 3)))
    refuses("an empty batch", lambda: plan.forward(values, x, 0))
    for starts, columns in (
        ([0, 2], [1, 1]),  # duplicate
        ([0, 2], [2, 1]),  # falling
        ([0, 1], [5]),  # past the end
        ([0, 1], [-1]),
        ([0, 3], [0, 1]),  # more than there are
        ([1, 2], [0, 1]),
        ([0, 1, 2], [0, 1]),  # wrong length
    ):
        refuses(
            f"{starts} {columns}",
            lambda s=starts, c=columns: Plan(torch.tensor(s).int(), torch.tensor(c).int(), (1, 5)),
        )
    refuses("falling starts", lambda: Plan(torch.tensor([0, 9, 2]).int(), torch.tensor([0, 1]).int(), (2, 5)))
    # The C side checks lengths again, whatever the wrapper does.
    s, b = plan._structure, lambda t: (t.data_ptr(), t.numel())
    y = torch.empty(panels_shape(5, 20))
    refuses("C: short y", lambda: s.forward(4, 5, 16, b(values), b(x), b(y.flatten()[1:])))
    refuses("C: width", lambda: s.forward(4, 5, 24, b(values), b(x), b(y)))
    refuses("C: width 0", lambda: s.forward(4, 5, 0, b(values), b(x), b(y)))
    refuses("C: itemsize", lambda: s.forward(2, 5, 16, b(values), b(x), b(y)))
    refuses("C: nothing wanted", lambda: s.backward(4, 5, 16, b(g), b(values), b(x), None, None))
    refuses("C: dv without x", lambda: s.backward(4, 5, 16, b(g), b(values), None, None, b(values)))
    refuses("C: part", lambda: s.forward(4, 5, 16, b(values), b(x), b(y), None, 2, 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("structures", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(options.structures, options.seed)
    test_border()
    test_deterministic()
    test_large_layer()
    print(f"{options.structures:,} structures, instruction sets {', '.join(isas())}: all right")
