"""`sparseflow bench step`: one optimisation step, masked against compact against the dense twin."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Callable
from math import nan
from multiprocessing.connection import Connection

import torch
from torch.nn import functional as F

from sparseflow.bench.timing import Row, interleaved, median_and_spread, resident_mib
from sparseflow.core import BadValue, stream
from sparseflow.study import RunSpec, build, optimizer_for, validate
from sparseflow.train import Sparse, resolve_implementation

IMPLEMENTATIONS = ("masked", "compact", "dense twin")


def bench_step(
    optimizers: tuple[str, ...] = ("sgd", "adam"),
    dense_width: int = 308,
    *,
    input_shape: tuple[int, ...] = (3, 32, 32),
    classes: int = 100,
    depth: int = 4,
    batch_size: int = 128,
    rounds: int = 15,
    threads: int = 1,
    implementation: str = "auto",
    memory: bool = True,
    report: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Median time of one step (zero_grad, forward, loss, backward, masking, optimiser) of the SC-SDC sparse net.

    All implementations of a case run in turn in this process; peak memory is taken in a fresh process for each.

    Args:
        dense_width: width of the twin; the sparse net is input size + 4 wide.
        implementation: of the optimiser ("auto": fused where torch has it).
        report: told what is being measured.

    Raises:
        BadValue: for fewer than two rounds.
    """
    if rounds < 2:
        raise BadValue(f"rounds must be at least 2, got {rounds}")
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in optimizers:
            how = resolve_implementation(name, implementation)
            case = f"step, dense width {dense_width}, depth {depth}, batch {batch_size}, {name} ({how})"
            calls = {}
            for kind in IMPLEMENTATIONS:
                report(f"{name}: building {kind}")
                spec = _spec(kind, name, dense_width, depth, implementation)
                calls[kind] = make_step(spec, input_shape, classes, batch_size)
            report(f"{name}: timing")
            times = interleaved(calls, rounds)
            del calls
            for kind in IMPLEMENTATIONS:
                peak = nan
                if memory:
                    report(f"{name}: memory of {kind}")
                    spec = _spec(kind, name, dense_width, depth, implementation)
                    peak = _peak_mib(spec, input_shape, classes, batch_size, threads)
                rows.append(Row(case, _label(kind), *median_and_spread(times[kind]), peak))
    finally:
        torch.set_num_threads(before)
    return rows


def _label(kind: str) -> str:
    return "masked (gradient and step hooks)" if kind == "masked" else kind


def _spec(kind: str, optimizer: str, dense_width: int, depth: int, implementation: str) -> RunSpec:
    content: dict[str, object] = {
        "model": {"depth": depth},
        "optimizer": {"name": optimizer, "implementation": implementation},
    }
    if kind == "dense twin":
        content["model"] = {"depth": depth, "width": dense_width}
    else:
        content["mask"] = {"twin_width": dense_width, "execution": kind}
    return validate(RunSpec, content)


def make_step(spec: RunSpec, input_shape: tuple[int, ...], classes: int, batch_size: int) -> Callable[[], torch.Tensor]:
    """A closure that takes one optimisation step of the specified network on a fixed random batch."""
    network = build(spec, input_shape, classes)
    model = network.model.train()
    optimizer = optimizer_for(spec, model)
    sparse = Sparse(model, network.masks, optimizer)
    draw = stream(0, "bench")
    x = torch.randn((batch_size, *input_shape), generator=draw)
    y = torch.randint(classes, (batch_size,), generator=draw)

    def step() -> torch.Tensor:
        sparse.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        sparse.optimizer.step()
        return loss.detach()

    return step


def _peak_mib(spec: RunSpec, input_shape: tuple[int, ...], classes: int, batch_size: int, threads: int) -> float:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_measure_peak, args=(theirs, spec.changes(), input_shape, classes, batch_size, threads)
    )
    process.start()
    theirs.close()
    try:
        return float(ours.recv())
    except EOFError:
        return nan
    finally:
        process.join()


def _measure_peak(
    pipe: Connection,
    changes: dict[str, object],
    input_shape: tuple[int, ...],
    classes: int,
    batch_size: int,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    # One product of each kind first, so that lazily loaded kernels count as imports.
    make_step(validate(RunSpec, {"mask": {"density": 0.5, "execution": "compact"}}), (4,), 2, 2)()
    level = resident_mib("VmRSS")
    step = make_step(validate(RunSpec, changes), input_shape, classes, batch_size)
    for _ in range(3):
        step()
    pipe.send(resident_mib("VmHWM") - level)
