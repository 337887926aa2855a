"""The engine of dynamic sparse training: when, how many, exactly (004 sec. 3.2, 4.2, B.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import cos, floor, pi

import torch
from torch import Tensor

from sparseflow.core import BadValue, Catalog, check_fraction, check_positive, stream
from sparseflow.masks import best
from sparseflow.train.rules.pairs import Pair, rewirings
from sparseflow.train.rules.scene import Change, LayerScene, Scene

decays: Catalog[Callable[[float, float], float]] = Catalog("drop decay")
"""name -> (part of the rewiring that has passed, present over initial learning rate) -> factor on the drop fraction."""


@decays.add("cosine", cite="Evci et al. 2020, arXiv:1911.11134, eq. 1")
def cosine(passed: float, rate: float) -> float:
    """Half a cosine from 1 to 0 at the last update."""
    return (1.0 + cos(pi * passed)) / 2.0


@decays.add("rate", cite="Evci et al. 2022, arXiv:2010.03533, app. B.2")
def with_rate(passed: float, rate: float) -> float:
    """As the learning rate falls."""
    return rate


@decays.add("constant", cite="Mocanu et al. 2018, arXiv:1707.04780")
def constant(passed: float, rate: float) -> float:
    """The same fraction at every update."""
    return 1.0


@dataclass(frozen=True)
class Rewire:
    """Rewire every `every` steps until `stop`: drop a fraction of each layer's active weights, grow as many.

    Each layer keeps its number of active weights exactly; dense layers are passed over. Newly grown weights start at 0
    with the optimiser's initial state.

    Args:
        pair: name in `rewirings`, or a `Pair` of one's own.
        every: optimiser steps between two updates.
        stop: T_end, in optimiser steps: no update at or after it.
        fraction: a of f(t) = (a / 2) (1 + cos(pi t / T_end)), the part of a layer's active weights that an update
            drops, rounded down.
        decay: name in `decays`.
        start: no update before this step.
        replace_step: an update takes the place of the optimiser's step, as in RigL's algorithm 1; else it follows it.
        keep_regrown: a weight that is dropped and grown in one update keeps its value and state; else it starts at 0.
        seed: of random growth and ties.

    Raises:
        UnknownName: for a rule or decay that is not in its catalog.
        BadValue: for an interval below 1, a fraction outside (0, 1], or a stop before the start.
    """

    pair: str | Pair
    every: int = 100
    stop: int = 0
    fraction: float = 0.3
    decay: str = "cosine"
    start: int = 0
    replace_step: bool = True
    keep_regrown: bool = True
    seed: int = 0
    _scores: Pair = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive("every (steps between two updates)", self.every)
        check_fraction("the fraction to drop", self.fraction)
        if self.stop <= self.start or self.start < 0:
            raise BadValue(f"rewiring must stop after it starts, got start {self.start}, stop {self.stop}")
        decays.entry(self.decay)
        object.__setattr__(self, "_scores", rewirings[self.pair]() if isinstance(self.pair, str) else self.pair)

    @property
    def needs_gradient(self) -> bool:
        return self._scores.needs_gradient

    @property
    def replaces_step(self) -> bool:
        return self.replace_step

    def due(self, step: int) -> bool:
        return self.start <= step < self.stop and step > 0 and step % self.every == 0

    def drop_fraction(self, step: int, rate: float = 1.0) -> float:
        """The part of a layer's active weights that the update after `step` optimiser steps drops."""
        return self.fraction * decays[self.decay](step / self.stop, rate)

    def changes(self, at: Scene) -> Mapping[str, Change]:
        part = self.drop_fraction(at.step, at.rate)
        return {
            name: self._rewired(layer, floor(part * layer.active), name, at.step)
            for name, layer in at.layers.items()
            if not layer.is_dense
        }

    def _rewired(self, layer: LayerScene, count: int, name: str, step: int) -> Change:
        keep = best(self._scores.keep(layer), layer.active - count, stream(self.seed, "drop", name, step))
        stays = layer.places[keep]
        grown = self._grown(layer, stays, count, stream(self.seed, "grow", name, step))
        dropped = (~keep).nonzero().squeeze(1)
        if not self.keep_regrown:
            return Change(dropped, grown)
        places = layer.places[dropped]
        return Change(dropped[~torch.isin(places, grown)], grown[~torch.isin(grown, places)])

    def _grown(self, layer: LayerScene, stays: Tensor, count: int, draw: torch.Generator) -> Tensor:
        """Flat indices of the weights to grow; those just dropped may be among them."""
        size = layer.shape.numel()
        if self._scores.grow is None:
            return random_places(size, stays, count, draw).to(stays.device)
        score = self._scores.grow(layer).flatten()
        free = torch.ones(size, dtype=torch.bool, device=score.device)
        free[stays] = False
        return best(score, count, draw, among=free).nonzero().squeeze(1)


def random_places(size: int, taken: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """`count` different indices below `size` outside of `taken`, every set equally likely; nothing of `size` is made.

    Args:
        taken: rising indices.
    """
    taken = taken.cpu()
    found = torch.empty(0, dtype=torch.int64)
    while found.numel() < count:
        # Independent draws, of which the first occurrence of each place outside is taken, are draws without repetition.
        more = torch.randint(0, size, (2 * count + 16,), generator=draw)
        at = torch.searchsorted(taken, more).clamp(max=max(0, taken.numel() - 1))
        more = more[taken[at] != more] if taken.numel() else more
        every = torch.cat([found, more])
        _, which = torch.unique(every, return_inverse=True)
        first = torch.full((int(which.max()) + 1 if which.numel() else 0,), every.numel(), dtype=torch.int64)
        first.scatter_reduce_(0, which, torch.arange(every.numel()), "amin")
        found = every[first.sort().values]
    return found[:count]
