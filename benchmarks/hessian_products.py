"""What a Hessian-vector product costs, against PyHessian's and between executions, as ratios within one run.

    python hessian_products.py pyhessian                         # ResNet-20, images of 32 x 32, batches of 128
    python hessian_products.py executions --nets mlp,resnet-20   # compact against masked at density 0.05

`pyhessian`: the Hessian of all parameters of a dense network in evaluation mode, the same vector for all. "kept" keeps
the graph of the gradient between products (PyHessian: one batch of `data`), "fresh" makes it anew for each (PyHessian:
`dataloader`). PyHessian is needed for this part alone: pip install -c constraints.txt pyhessian

`executions`: active weights alone at random masks, graphs kept.

Products are compared before they are timed. They are timed in turn, so that a machine whose speed drifts slows all
alike, in processor time (wall time beside it): other work on the machine hardly changes it. Peak memory is the highest
resident memory of a fresh process that builds one and takes three products, above its level after imports and a
product of a batch of 2. Give it one thread (OMP_NUM_THREADS=1). It prints a table, and with --json one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.bench.memory import peak_mib
from sparseflow.bench.timing import thread_limit
from sparseflow.core import BadValue, stream, weight_shapes
from sparseflow.init import draw_active_
from sparseflow.masks import count, random_masks
from sparseflow.measure import Hessian
from sparseflow.models import materialise, models

NEEDED = "PyHessian is not installed: pip install -c constraints.txt pyhessian (only `pyhessian` here needs it)"

NETS = {
    "mlp": ("mlp", (1024,), {"depth": 3, "width": 1024}),
    "resnet-20": ("resnet", (3, 32, 32), {"depth": 20}),
}
RIVALS = ("pyhessian kept", "sparseflow kept", "pyhessian fresh", "sparseflow fresh")
EXECUTIONS = ("masked", "compact")
Product = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One implementation: seconds of a product in every round, and peak memory (nan if not measured)."""

    net: str
    name: str
    processor: list[float]
    wall: list[float]
    peak_mib: float


def network(net: str, batch: int, density: float, dtype: str) -> tuple[nn.Module, dict[str, Tensor], list]:
    """Drawn weights, zero outside of random masks (none at density 1), and one batch of normal images."""
    name, shape, options = NETS[net]
    kind = getattr(torch, dtype)
    with torch.device("meta"):
        outline = models[name](shape, 10, **options)
    model = materialise(outline, dtype=kind)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, count("uniform", shapes, density), seed=0) if density < 1 else {}
    draw_active_(model, masks, seed=0)
    with torch.no_grad():
        for weight, mask in masks.items():
            model.get_parameter(weight).masked_fill_(~mask, 0.0)
    x = torch.randn(batch, *shape, generator=stream(0, "bench", "images"), dtype=kind)
    return model.eval(), masks, [(x, torch.arange(batch) % 10)]


def vector(size: int, dtype: str) -> Tensor:
    return torch.randn(size, generator=stream(0, "bench", "vector")).to(getattr(torch, dtype))


def sparseflow_product(net: str, batch: int, dtype: str, kept: bool) -> Product:
    """All parameters of the dense network, in the order of Hessian's coordinates."""
    model, _, batches = network(net, batch, 1.0, dtype)
    hessian = Hessian(model, F.cross_entropy, batches, others=True, keep_graphs=kept)
    v = vector(hessian.size, dtype)
    return lambda: hessian.matvec(v)


def pyhessian_product(net: str, batch: int, dtype: str, kept: bool) -> Product:
    """The same, by PyHessian; its parameters come in the model's order and are put into ours once it is done."""
    try:
        from pyhessian import hessian, hessian_vector_product
    except ModuleNotFoundError:
        sys.exit(NEEDED)
    model, _, batches = network(net, batch, 1.0, dtype)
    named = dict(model.named_parameters())
    order = [*weight_shapes(model), *(name for name in named if name not in weight_shapes(model))]
    whole = vector(sum(p.numel() for p in named.values()), dtype)
    parts = dict(zip(order, whole.split([named[name].numel() for name in order]), strict=True))
    v = [parts[name].view_as(p) for name, p in named.items()]
    with warnings.catch_warnings():  # of backward(create_graph=True), whose cycle it keeps
        warnings.simplefilter("ignore", UserWarning)
        how = {"data": batches[0]} if kept else {"dataloader": batches}
        theirs = hessian(model, F.cross_entropy, cuda=False, **how)

    def product() -> Tensor:
        if kept:
            found = hessian_vector_product(theirs.gradsH, theirs.params, v)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                _, found = theirs.dataloader_hv_product(v)
        flat = dict(zip(named, found, strict=True))
        return torch.cat([flat[name].reshape(-1) for name in order])

    return product


def execution_product(net: str, batch: int, dtype: str, density: float, compact: bool) -> Product:
    """Active weights alone, the graph kept."""
    model, masks, batches = network(net, batch, density, dtype)
    hessian = Hessian(model, F.cross_entropy, batches, masks, compact=compact)
    v = vector(hessian.size, dtype)
    return lambda: hessian.matvec(v)


def makers(part: str, net: str, batch: int, dtype: str, density: float) -> dict[str, tuple[Callable, tuple, tuple]]:
    """name -> (function that makes the product, its arguments, those of a batch of 2)."""
    made = {}
    for name in RIVALS if part == "pyhessian" else EXECUTIONS:
        if part == "pyhessian":
            make = pyhessian_product if name.startswith("pyhessian") else sparseflow_product
            rest: tuple = (dtype, name.endswith("kept"))
        else:
            make, rest = execution_product, (dtype, density, name == "compact")
        made[name] = (make, (net, batch, *rest), (net, 2, *rest))
    return made


def agreement(products: dict[str, Product]) -> float:
    """The largest distance of a product from the first one, as a part of its length."""
    first, *others = (product().double() for product in products.values())
    return max(float((other - first).norm() / first.norm()) for other in others)


def timed(products: dict[str, Product], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """name -> (processor, wall) seconds in every round; the order turns round, so that none always comes first."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in products}
    for number in range(rounds):
        for name, product in list(products.items())[:: -1 if number % 2 else 1]:
            processor, wall = time.process_time(), time.perf_counter()
            product()
            found[name][0].append(time.process_time() - processor)
            found[name][1].append(time.perf_counter() - wall)
    return found


def measure(part: str, net: str, options: argparse.Namespace) -> tuple[list[Row], float]:
    made = makers(part, net, options.batch, options.dtype, options.density)
    with thread_limit(1):
        products = {name: make(*arguments) for name, (make, arguments, _) in made.items()}
        off = agreement(products)
        if not off <= (1e-9 if options.dtype == "float64" else 1e-4):  # nan, too: of products that are 0
            raise BadValue(f"the products of {net} differ by {off:.2g} of their length; nothing was timed")
        times = timed(products, options.rounds)
        del products
    rows = []
    for name, (make, arguments, small) in made.items():
        peak = peak_mib(make, arguments, small) if options.memory else float("nan")
        rows.append(Row(net, name, *times[name], peak))
    return rows, off


def table(rows: Sequence[Row]) -> list[str]:
    """Ratios are of medians and minima of processor time, to the named rival: the row above, or masked."""
    lines = [f"{'':<28}{'median s':>9}{'min s':>8}{'wall s':>8}{'peak MiB':>10}{'  ratio of medians, minima, memory'}"]
    for k, row in enumerate(rows):
        line = f"{row.net + ', ' + row.name:<28}{median(row.processor):>9.4f}{min(row.processor):>8.4f}"
        line += f"{median(row.wall):>8.4f}{row.peak_mib:>10.0f}"
        if k % 2:
            rival = rows[k - 1]
            ratios = (
                median(row.processor) / median(rival.processor),
                min(row.processor) / min(rival.processor),
                row.peak_mib / rival.peak_mib,
            )
            line += "  " + ", ".join(f"{ratio:.3f}" for ratio in ratios) + f" x {rival.name}"
        lines.append(line)
    return lines


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pyhessian", "executions"))
    parser.add_argument("--nets", help=f"of {', '.join(NETS)}; default: resnet-20 against PyHessian, else all")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--density", type=float, default=0.05, help="of `executions`")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    nets = (options.nets or ("resnet-20" if options.part == "pyhessian" else ",".join(NETS))).split(",")
    for net in nets:
        if net not in NETS:
            parser.error(f"--nets: {net!r} is none of {', '.join(NETS)}")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if options.part == "executions" and not 0 < options.density < 1:
        parser.error(f"--density must be between 0 and 1, got {options.density:g}")
    said = []
    for net in nets:
        rows, off = measure(options.part, net, options)
        said += [{**vars(row), "apart": off} for row in rows]
        if not options.json:
            print(f"batch {options.batch}, {options.dtype}; the products differ by {off:.1g} of their length at most")
            print("\n".join(table(rows)), flush=True)
    if options.json:
        print(json.dumps(said))


if __name__ == "__main__":
    main()
