"""Rewiring rules: pairs of scores, by which active weights are dropped and others grown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparseflow.core import Catalog
from sparseflow.train.rules.scene import LayerScene


@dataclass(frozen=True)
class Pair:
    """Two scores over one layer.

    Attributes:
        keep: layer -> score of each active weight, (active,); the lowest are dropped.
        grow: layer -> score of every weight, of the dense shape; the highest of those that are not active (or were
            just dropped) are grown. None grows at random.
        needs_gradient: whether a score looks at `LayerScene.gradient`.
    """

    keep: Callable[[LayerScene], Tensor]
    grow: Callable[[LayerScene], Tensor] | None
    needs_gradient: bool = False


rewirings: Catalog[Callable[[], Pair]] = Catalog("rewiring rule")


@rewirings.add("set", cite="Mocanu et al. 2018, arXiv:1707.04780")
def set_() -> Pair:
    """Drop the smallest magnitudes, grow at random."""
    return Pair(_magnitude, None)


@rewirings.add("rigl", cite="Evci et al. 2020, arXiv:1911.11134")
def rigl() -> Pair:
    """Drop the smallest magnitudes, grow where the gradient is largest."""
    return Pair(_magnitude, lambda layer: _gradient(layer).abs(), needs_gradient=True)


@rewirings.add("rigl-inverted", cite="Evci et al. 2022, arXiv:2010.03533, sec. 4.2")
def rigl_inverted() -> Pair:
    """Drop the smallest magnitudes, grow where the gradient is smallest."""
    return Pair(_magnitude, lambda layer: -_gradient(layer).abs(), needs_gradient=True)


def _magnitude(layer: LayerScene) -> Tensor:
    return layer.values.abs()


def _gradient(layer: LayerScene) -> Tensor:
    assert layer.gradient is not None, "the pair asked for it"
    return layer.gradient
