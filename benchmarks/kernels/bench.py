"""Forward + both backward products of one layer, in ms: masked dense, dense twin, torch CSR, these kernels.

    OMP_NUM_THREADS=1 python bench.py [--threads N] [--quick]

Every figure is the median of interleaved runs in one process. `panels`: activations stay in panels, values gathered;
`major`: batch-major in and out, the four conversions (x, y, g, dx) counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from kern import Plan, pack, unpack

warnings.filterwarnings("ignore", message=".*CSR.*")


def interleaved(cases: dict[str, Callable[[], None]], seconds: float) -> dict[str, tuple[float, float]]:
    """Median and spread (median absolute deviation) of each case, in ms. The runs take turns, so that what else the
    machine does falls on all of them."""
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 7:
        for name, case in cases.items():
            # A burst of runs, its median: a case is timed with its own data in the caches, as a layer in a loop is not
            # wholly either, and small ones are not timed in the ruins of large ones.
            burst = []
            for _ in range(3):
                start = time.perf_counter()
                case()
                burst.append((time.perf_counter() - start) * 1e3)
            times[name].append(statistics.median(burst))
    result = {}
    for name, all_times in times.items():
        median = statistics.median(all_times)
        result[name] = median, statistics.median(abs(t - median) for t in all_times)
    return result


def layer(n_in: int, n_out: int, batch: int, density: float, threads: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    mask = torch.rand(n_out, n_in) < density
    weight = torch.randn(n_out, n_in) * mask
    x, g = torch.randn(batch, n_in), torch.randn(batch, n_out)

    def masked() -> None:
        w = weight * mask
        x @ w.t()
        g @ w
        (g.t() @ x).mul_(mask)

    t_in, t_out = max(1, round(n_in * density**0.5)), max(1, round(n_out * density**0.5))
    t_w, t_x, t_g = torch.randn(t_out, t_in), torch.randn(batch, t_in), torch.randn(batch, t_out)

    def twin() -> None:
        t_x @ t_w.t()
        t_g @ t_w
        t_g.t() @ t_x

    csr = weight.to_sparse_csr()
    rows, cols, values = csr.crow_indices().int(), csr.col_indices().int(), csr.values()
    t_rows_cols = (weight.t() != 0).nonzero()
    order_t = torch.argsort(csr.col_indices(), stable=True).int()
    cols_t = t_rows_cols[:, 1].int()
    rows_t = torch.cat([torch.zeros(1), torch.bincount(t_rows_cols[:, 0], minlength=n_in).cumsum(0)]).int()
    x_f, g_f = x.t().contiguous(), g.t().contiguous()

    def matrix(r: torch.Tensor, c: torch.Tensor, v: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        return torch.sparse_csr_tensor(r, c, v, shape, check_invariants=False)

    def torch_csr() -> None:
        matrix(rows, cols, values, (n_out, n_in)) @ x_f
        matrix(rows_t, cols_t, values[order_t], (n_in, n_out)) @ g_f
        pattern = matrix(rows, cols, torch.zeros_like(values), (n_out, n_in))
        torch.sparse.sampled_addmm(pattern, g_f, x_f.t(), beta=0.0).values().clone()

    plan = Plan.of(mask)
    v = weight.flatten()[plan.flat]
    xp, gp = pack(x), pack(g)

    def panels() -> None:
        plan.forward(v, xp, batch, threads=threads)
        plan.backward(v, xp, gp, batch, threads=threads)

    def major() -> None:
        x_now = pack(x)
        unpack(plan.forward(v, x_now, batch, threads=threads), batch)
        dx, _ = plan.backward(v, x_now, pack(g), batch, threads=threads)
        unpack(dx, batch)

    return {"masked": masked, "twin": twin, "csr": torch_csr, "panels": panels, "major": major}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shapes = [(3076, 3076, 128)]
    if not options.quick:
        shapes += [(n_in, n_out, batch) for n_in, n_out in ((784, 788), (512, 512)) for batch in (32, 128, 512)]
    names = ("masked", "twin", "csr", "panels", "major")
    print("layer x batch        density  " + "".join(f"{name:>16}" for name in names) + "  panels/twin major/twin")
    for n_in, n_out, batch in shapes:
        for density in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
            cases = layer(n_in, n_out, batch, density, options.threads)
            result = interleaved(cases, 6.0 if n_in > 1000 else 1.0)
            row = "".join(f"{result[name][0]:10.3f} ±{result[name][1]:4.2f}" for name in names)
            twin = result["twin"][0]
            ratios = f"{result['panels'][0] / twin:11.2f} {result['major'][0] / twin:10.2f}"
            print(f"{n_in:5}->{n_out:5} x{batch:4} {density:8} {row}{ratios}", flush=True)


if __name__ == "__main__":
    main()
