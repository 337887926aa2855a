"""Activation sparsity of finished runs: which part of every layer's outputs is exactly 0 (003 Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparseflow.core import Batch
from sparseflow.measure import Zeros, activation_zeros, by_stage
from sparseflow.study.parts import PartFile
from sparseflow.study.reload import Loaded


@dataclass(frozen=True)
class NetworkZeros:
    """Of one network: layer (or stage) -> zeros among its outputs for the examples, in the order of a forward pass."""

    label: str
    group: str
    layers: Mapping[str, Zeros]
    examples: int


def zeros_of(
    net: Loaded,
    group: str,
    batches: Callable[[], Sequence[Batch]],
    parts: PartFile,
    settings: Mapping[str, Any],
    stages: Sequence[str] = (),
) -> NetworkZeros:
    """Count them; what the folder has already is not counted again.

    Args:
        settings: what the numbers depend on besides the network: the examples.
        stages: beginnings of names that are put together, such as a ResNet's; by default every layer is its own.

    Raises:
        BadValue: without activation modules, or for a stage that no layer belongs to.
    """
    key = {"analysis": "activations", **net.identity, **settings}

    def count() -> dict[str, Any]:
        some = batches()
        layers = [(name, at.zeros, at.values) for name, at in activation_zeros(net.model, some).items()]
        return {"layers": layers, "examples": sum(len(y) for _, y in some)}

    found = parts.take(key, count)
    layers = {name: Zeros(zeros, values) for name, zeros, values in found["layers"]}
    return NetworkZeros(net.label, group, by_stage(layers, stages) if stages else layers, found["examples"])
