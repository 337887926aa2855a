"""Which layers are worth making compact on this machine, by measuring it once.

For library use. A study takes the shipped table (`choose`), so that no measurement changes a result.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseflow.core import Masks, check_masks, user_cache
from sparseflow.sparse import native
from sparseflow.sparse.convert import compact, obstacles, padding_of
from sparseflow.sparse.layout import batch_last

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Where the two are compared; the crossover is the largest at which compact is as fast as masked."""


@dataclass(frozen=True)
class Case:
    """A layer as far as its time depends on it, its density aside."""

    weight: tuple[int, ...]
    input: tuple[int, ...]
    """Batch first."""
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dtype: str = "float32"
    threads: int = 1


def worth_compacting(
    model: nn.Module,
    masks: Masks,
    example: Tensor,
    *,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda what: None,
) -> list[str]:
    """Names of the masked weights whose layers train at least as fast compact as masked, on this machine.

    Each kind of layer is measured once (a second or so) and remembered in `cache`. Pass the result on:
    `compact(model, masks, only=worth_compacting(model, masks, example))`.

    Args:
        example: a batch of the size that training will use, on the model's device; run through the model once.
        cache: file of measured crossovers; by default `sparseflow/crossover.json` in the user's cache folder.
        report: told what is being measured.

    Raises:
        BadValue: for a mask that fits no weight.
    """
    check_masks(model, masks)
    known = _Cache(cache or _default_cache())
    possible = [name for name, obstacle in obstacles(model, masks).items() if obstacle is None]
    inputs = _inputs(model, [name.rpartition(".")[0] for name in possible], example)
    chosen = []
    for name in possible:
        prefix = name.rpartition(".")[0]
        if prefix not in inputs or model.get_parameter(name).device.type != "cpu":
            continue  # the example does not use it; or a device whose sparse products are never ahead of its dense ones
        case = _case(model.get_submodule(prefix), inputs[prefix])
        border = known.get(case)
        if border is None:
            report(f"measuring a layer {tuple(case.weight)} on inputs {tuple(case.input)}")
            border = known[case] = measure(case)
        if int(masks[name].count_nonzero()) <= border * masks[name].numel():
            chosen.append(name)
    return chosen


def measure(case: Case, densities: tuple[float, ...] = DENSITIES) -> float:
    """The largest of the densities at which compact is at least as fast as masked, 0 if there is none; by bisection."""
    low, high = 0, len(densities)  # compact wins below `low`, loses from `high` on
    while low < high:
        middle = (low + high) // 2
        masked_ms, compact_ms = times(case, densities[middle])
        low, high = (middle + 1, high) if compact_ms <= masked_ms else (low, middle)
    return densities[low - 1] if low else 0.0


def times(case: Case, density: float, seconds: float = 0.15) -> tuple[float, float]:
    """Median milliseconds of forward, backward and masking the gradient: (masked, compact), turn by turn."""
    draw = torch.Generator().manual_seed(0)
    layer = _layer(case)
    mask = torch.rand(case.weight, generator=draw) < density
    off = ~mask
    small = compact(nn.Sequential(_layer(case)), {"0.weight": mask}).model
    x = torch.randn(case.input, generator=draw, dtype=layer.weight.dtype)
    flowing = batch_last(x).movedim(-1, 0).detach()
    x.requires_grad_()
    flowing.requires_grad_()
    g = torch.randn(layer(x).shape, generator=draw, dtype=x.dtype)
    g_flowing = batch_last(g).movedim(-1, 0)

    def masked() -> None:
        layer.zero_grad()
        layer(x).backward(g)
        assert layer.weight.grad is not None
        layer.weight.grad.masked_fill_(off, 0.0)

    def compacted() -> None:
        small.zero_grad()
        small(flowing).backward(g_flowing)

    taken: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(taken[0]) < 5 or time.perf_counter() < end:
        for call, record in zip((masked, compacted), taken, strict=True):
            call()  # brings its own data back into the caches
            start = time.perf_counter()
            call()
            record.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken[0]), statistics.median(taken[1])


def _layer(case: Case) -> nn.Linear | nn.Conv2d:
    dtype = getattr(torch, case.dtype)
    out, into, *kernel = case.weight
    if not kernel:
        return nn.Linear(into, out, bias=False, dtype=dtype)
    size, stride, padding = ((pair[0], pair[1]) for pair in (kernel, case.stride, case.padding))
    return nn.Conv2d(into, out, size, stride, padding, bias=False, dtype=dtype)


def _case(layer: nn.Module, shape: torch.Size) -> Case:
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    dtype, threads = str(layer.weight.dtype).removeprefix("torch."), torch.get_num_threads()
    weight = tuple(layer.weight.shape)
    if isinstance(layer, nn.Linear):
        return Case(weight, (shape[:-1].numel(), shape[-1]), dtype=dtype, threads=threads)
    return Case(weight, tuple(shape), layer.stride, padding_of(layer), dtype, threads)


def _inputs(model: nn.Module, prefixes: list[str], example: Tensor) -> dict[str, torch.Size]:
    """Layer -> shape of its input when the model sees the example; the model's state stays as it was."""
    shapes: dict[str, torch.Size] = {}

    def note(prefix: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: shapes.update({prefix: args[0].shape})

    handles = [model.get_submodule(p).register_forward_pre_hook(note(p)) for p in prefixes]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return shapes


class _Cache:
    """Crossovers by machine and case, in one JSON file; what cannot be read is measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._machine = _machine()

    def _content(self) -> dict[str, dict[str, float]]:
        try:
            content = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def get(self, case: Case) -> float | None:
        return self._content().get(self._machine, {}).get(_key(case))

    def __setitem__(self, case: Case, density: float) -> None:
        content = self._content()
        content.setdefault(self._machine, {})[_key(case)] = density
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps(content, indent=1))
        aside.replace(self._path)


def _key(case: Case) -> str:
    return json.dumps(asdict(case), sort_keys=True)


def _default_cache() -> Path:
    return user_cache() / "crossover.json"


def _machine() -> str:
    """What times depend on besides the case."""
    return (
        f"{processor()} / kernels {native.kernels()} / torch {torch.__version__} / sparseflow {version('sparseflow')}"
    )


def processor() -> str:
    """What this machine's processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
