"""Signal propagation: how large the outputs of a network are for random inputs, before training (004 Fig. 1c)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, nan, sqrt
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Masks, Shapes, check_fraction, global_stream, stream, stream_seed, weight_shapes
from sparseflow.init import Scheme, draw_, initialisations
from sparseflow.masks import Budget, Selection, count, matching, prunable, random_masks, select, without
from sparseflow.measure.units import outputs_and_shares
from sparseflow.stats import summary

DENSITIES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)

DENSE = ("dense", 1.0)
"""Initialisation and density of the reference: the dense network as it is usually drawn."""


class Key(NamedTuple):
    """What one draw is a function of, beside the settings of its `Propagation`."""

    initialisation: str
    density: float
    number: int


@dataclass(frozen=True)
class Draw:
    """One network on the random inputs.

    Attributes:
        deviation: standard deviation over all its outputs for all inputs, of (inputs, ...) numbers.
        unreached, dead: shares of the units (`units.Shares`), nan where no layer is known.
        fan_in: the smallest number of active weights that any unit of a masked layer reads.
    """

    deviation: float
    unreached: float
    dead: float
    fan_in: int


@dataclass(frozen=True)
class Point:
    """All draws of one initialisation at one density."""

    initialisation: str
    density: float
    draws: Sequence[Draw]

    @cached_property
    def deviations(self) -> npt.NDArray[np.float64]:
        return np.array([draw.deviation for draw in self.draws])

    @property
    def rms(self) -> float:
        """Root of the mean square of the deviations: what theory speaks of, since variances are what adds up."""
        return sqrt(float(np.mean(self.deviations**2)))

    @property
    def error(self) -> float:
        """Standard error of `rms`, from the spread of the squares (first order)."""
        squares = summary(self.deviations**2)
        return squares.std / sqrt(squares.n) / (2 * self.rms) if self.rms else 0.0

    def relative_to(self, other: Point) -> tuple[float, float]:
        """`rms` in parts of the other one's, and its standard error, of both as if independent; nan for parts of 0."""
        if not other.rms:
            return nan, nan
        part = self.rms / other.rms
        return part, 0.0 if self is other else hypot(self.error, part * other.error) / other.rms

    def quantile(self, q: float) -> float:
        """Of the deviations over draws."""
        return float(np.quantile(self.deviations, q))

    @property
    def unreached(self) -> float:
        """Mean share of units that nothing reaches."""
        return fmean(draw.unreached for draw in self.draws)

    @property
    def dead(self) -> float:
        """Mean share of dead units."""
        return fmean(draw.dead for draw in self.draws)

    @property
    def fan_in(self) -> int:
        """The smallest of all draws."""
        return min(draw.fan_in for draw in self.draws)


class Propagation:
    """Draws masks and weights of one model, and measures its outputs on fixed standard normal inputs.

    The model is copied: it and all generators stay as they are. A draw is a function of the settings, its
    initialisation, density and number alone; equal numbers share their random numbers, so densities and initialisations
    are compared on the same footing. Biases and normalisation stay as the model has them.

    Args:
        input_shape: of one example.
        probes: number of inputs.
        budget: name in `masks.budgets`, of those that take one density; masks are uniformly random within it.
        dense: weights that keep all entries and still count in the density; selected as in `masks.prune`.
        scheme: He normal with fan-in by default.
        batch_norm: normalise with the batch's statistics ("train") or the running ones; all else is in evaluation mode.

    Raises:
        BadValue: for fewer than two probes, another `batch_norm`, a model without weights or with compact layers, a
            selector that matches nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        *,
        probes: int = 256,
        seed: int = 0,
        budget: str = "uniform",
        dense: Selection = None,
        scheme: Scheme | None = None,
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        if probes < 2:
            raise BadValue(f"probes must be at least 2, for a deviation between inputs, got {probes}")
        weights = prunable(model)
        self._kept = matching(model, weights, dense, "dense")
        self._shapes: Shapes = {name: weight.shape for name, weight in weights.items()}
        self._names = _first_names(model, weights)
        self._model = _copy(model, batch_norm)
        self._scheme, self._budget, self._seed = scheme or Scheme(), budget, seed
        like = self._model.get_parameter(next(iter(weights)))
        self._inputs = torch.randn(probes, *input_shape, generator=stream(seed, "signal", "inputs")).to(like)
        self._last: tuple[tuple[float, int], dict[str, Tensor]] | None = None

    def keys(self, densities: Iterable[float], methods: Iterable[str], draws: int) -> list[Key]:
        """What has to be drawn for these densities and initialisations and for the dense reference, in order.

        Raises:
            BadValue: for fewer than two draws, a density outside (0, 1] or that the budget cannot have.
            UnknownName: for an initialisation or budget that its catalog does not hold.
        """
        if draws < 2:
            raise BadValue(f"draws must be at least 2, for a spread, got {draws}")
        methods = [initialisations.entry(method).name for method in methods]
        densities = [check_fraction("density", float(density)) for density in densities]
        if not methods or not densities:
            raise BadValue("signal propagation needs at least one density and one initialisation")
        for density in densities:
            self._count(density)
        asked = dict.fromkeys([DENSE, *((m, d) for d in sorted(densities, reverse=True) for m in methods)])
        by_density: dict[float, list[str]] = {}
        for method, density in asked:
            by_density.setdefault(density, []).append(method)
        return [Key(m, d, k) for d, those in by_density.items() for k in range(draws) for m in those]

    def draw(self, key: Key) -> Draw:
        """Draw a network and measure it.

        Raises:
            BadValue: for a model that does not take the inputs or returns anything but a tensor with a row an input.
        """
        masks = self._masks(key.density, key.number)
        seed = stream_seed(self._seed, "signal", key.number)
        draw_(self._model, masks, key.initialisation, self._scheme, seed=seed)
        with global_stream(seed, "forward"):  # for a model that draws while it runs
            out, shares = outputs_and_shares(self._model, self._inputs)
        deviation = float(out.to(torch.float64).std(correction=0))
        return Draw(deviation, *shares, min(int(mask.flatten(1).sum(1).min()) for mask in masks.values()))

    def _masks(self, density: float, number: int) -> Masks:
        """Of every weight by every name it has; the last ones are kept, for the next initialisation."""
        if self._last is None or self._last[0] != (density, number):
            seed, budget = stream_seed(self._seed, "signal", number), self._count(density)
            some = {name: shape for name, shape in self._shapes.items() if name not in self._kept}
            full = {name: torch.ones(self._shapes[name], dtype=torch.bool) for name in self._kept}
            if isinstance(budget, int):
                drawn = select({name: torch.zeros(shape) for name, shape in some.items()}, budget, seed)
            else:
                drawn = random_masks(some, budget, seed)
            drawn = full | drawn
            self._last = (density, number), {name: drawn[first] for name, first in self._names.items()}
        return self._last[1]

    def _count(self, density: float) -> Budget:
        return without(count(self._budget, self._shapes, density, self._kept), self._shapes, self._kept)


def signal_propagation(
    model: nn.Module,
    input_shape: Sequence[int],
    densities: Iterable[float] = DENSITIES,
    methods: Iterable[str] = initialisations.names,
    *,
    draws: int = 100,
    progress: Callable[[int, int], None] = lambda done, draws: None,
    **settings: Any,
) -> list[Point]:
    """The deviation of a model's outputs for every density and initialisation, over draws of masks and weights.

    Args:
        methods: names in `init.initialisations`.
        draws: networks of each point.
        progress: called with (draws done, draws in all).
        settings: as of `Propagation`.

    Returns:
        By density from the largest, in each in the order of `methods`; the dense reference (`DENSE`) is always there.

    Raises:
        BadValue, UnknownName: as `Propagation`, its `keys` and its `draw`.
    """
    propagation = Propagation(model, input_shape, **settings)
    keys = propagation.keys(densities, methods, draws)
    found: dict[Key, Draw] = {}
    for done, key in enumerate(keys, start=1):
        found[key] = propagation.draw(key)
        progress(done, len(keys))
    return points(found)


def points(draws: Mapping[Key, Draw]) -> list[Point]:
    """The draws by what they are draws of, in the order in which that first appears."""
    groups: dict[tuple[str, float], list[Draw]] = {}
    for key, draw in draws.items():
        groups.setdefault((key.initialisation, key.density), []).append(draw)
    return [Point(method, density, tuple(those)) for (method, density), those in groups.items()]


def _first_names(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Every name of a weight -> its first one: several modules may share a weight, and each draws it."""
    first = {id(weight): name for name, weight in weights.items()}
    return {name: first[id(model.get_parameter(name))] for name in weight_shapes(model)}


def _copy(model: nn.Module, batch_norm: str) -> nn.Module:
    if batch_norm not in ("train", "eval"):
        raise BadValue(f"batch_norm must be 'train' or 'eval', got {batch_norm!r}")
    work = copy.deepcopy(model).eval().requires_grad_(False)
    for module in work.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(batch_norm == "train")
    return work
