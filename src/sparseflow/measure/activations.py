"""Activation sparsity: how many of a layer's outputs are 0 (003 Table 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Batch
from sparseflow.measure.probing import probing, read
from sparseflow.models import activations


@dataclass(frozen=True)
class Zeros:
    """How many of a layer's output values are exactly 0, over all examples."""

    zeros: int
    values: int

    @property
    def share(self) -> float:
        """In [0, 1]: the paper's activation sparsity."""
        return self.zeros / self.values if self.values else 0.0

    def __add__(self, other: Zeros) -> Zeros:
        return Zeros(self.zeros + other.zeros, self.values + other.values)


def activation_zeros(
    model: nn.Module, batches: Iterable[Batch], modules: Collection[str] | None = None
) -> dict[str, Zeros]:
    """Layer name -> zeros among the outputs of each activation, in evaluation mode; the model comes back as it was.

    Args:
        modules: names of the modules whose outputs to look at; all activation modules by default. An activation that
            a forward pass calls as a function is no module: name the module that returns its output.

    Returns:
        In the order of the forward pass. A module that is called several times in one has an entry for each call, named
        "relu[0]", "relu[1]" ...

    Raises:
        BadValue: without activation modules, for a name that the model does not have, no batches, a module that was
            never called or does not return a tensor.
    """
    chosen = _chosen(model, modules)
    calls: Counter[str] = Counter()
    found: dict[tuple[str, int], Zeros] = {}
    handles = []

    def count(name: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise BadValue(f"{name} returns {type(output).__name__}, not a tensor; name another module")
        at = name, calls[name]
        calls[name] += 1
        zeros = Zeros(int((output == 0).sum()), output.numel())
        found[at] = found[at] + zeros if at in found else zeros

    def hook(name: str) -> Any:
        return lambda module, inputs, output: count(name, output)

    try:
        for name, module in chosen.items():
            handles.append(module.register_forward_hook(hook(name)))
        with torch.no_grad(), probing(model, "eval"):
            for inputs, _ in read(batches):
                calls.clear()
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(name for name, _ in found)
    if idle := [name for name in chosen if not times[name]]:
        raise BadValue(f"the forward pass does not call {', '.join(idle)}")
    return {name if times[name] == 1 else f"{name}[{k}]": zeros for (name, k), zeros in found.items()}


def by_stage(layers: Mapping[str, Zeros], stages: Iterable[str]) -> dict[str, Zeros]:
    """Stage -> the zeros of all layers whose names begin with it and a dot: a ResNet's "layers" of 003 Table 1.

    Raises:
        BadValue: for a stage that no layer belongs to.
    """
    found = {}
    for stage in stages:
        members = [zeros for name, zeros in layers.items() if name == stage or name.startswith(f"{stage}.")]
        if not members:
            raise BadValue(f"no layer is of the stage {stage!r} (there are: {', '.join(layers)})")
        found[stage] = sum(members, Zeros(0, 0))
    return found


def _chosen(model: nn.Module, names: Collection[str] | None) -> dict[str, nn.Module]:
    every: dict[str, nn.Module] = dict(model.named_modules())
    if names is None:
        chosen = {name: module for name, module in every.items() if isinstance(module, _kinds())}
        if not chosen:
            raise BadValue("the model has no activation modules; name the modules to look at, modules=[...]")
        return chosen
    if unknown := [name for name in names if name not in every]:
        raise BadValue(f"the model has no module {unknown[0]!r} (it has: {', '.join(filter(None, every))})")
    return {name: every[name] for name in names}


def _kinds() -> tuple[type[nn.Module], ...]:
    """Classes of activations: torch's, and those of our own catalog."""
    torchs = {getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__}
    own = {type(activations[name]()) for name in activations.names}
    return tuple((torchs | own) - {nn.MultiheadAttention})
