"""A spectrum from few products: stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparseflow.core import check_positive, stream
from sparseflow.measure.curvature.lanczos import Floats, Krylov
from sparseflow.measure.curvature.spectrum import Density, grid, smoothed
from sparseflow.measure.curvature.symmetric import Symmetric


@dataclass(frozen=True)
class Estimate:
    """A mean over probes with its standard error; nan for one probe."""

    value: float
    error: float


@dataclass(frozen=True)
class Quadrature:
    """For each probe v, nodes t_k and weights w_k with v' f(H) v = sum_k w_k f(t_k), as far as the steps reach.

    The mean of v' f(H) v over random probes of unit length is tr f(H) / size. With m steps it is exact for
    polynomials of degree 2 m - 1.

    Attributes:
        nodes, weights: one array (steps,) for each probe; the weights of a probe sum to 1.
        size: of H.
    """

    nodes: tuple[Floats, ...]
    weights: tuple[Floats, ...]
    size: int

    @property
    def products(self) -> int:
        """Products that were taken."""
        return sum(len(some) for some in self.nodes)

    def trace(self, of: Callable[[Floats], Floats] = lambda t: t) -> Estimate:
        """tr f(H), of H itself by default; `lambda t: t**2` gives the sum of squares of all entries."""
        return _estimate([self.size * float(w @ of(t)) for t, w in zip(self.nodes, self.weights, strict=True)])

    def density(self, *, at: npt.ArrayLike | None = None, width: float | None = None) -> Density:
        """The smoothed density with its standard error over probes; arguments as of `density`."""
        at, width = grid(np.concatenate(self.nodes), at, width)
        each = np.stack([smoothed(t, w, at, width) for t, w in zip(self.nodes, self.weights, strict=True)])
        probes = len(each)
        errors = each.std(0, ddof=1) / sqrt(probes) if probes > 1 else np.full(len(at), nan)
        return Density(at, each.mean(0), width, errors)


def quadrature(
    matrix: Symmetric,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] = lambda done, probes: None,
) -> Quadrature:
    """Nodes and weights from `probes` times at most `steps` products.

    Args:
        matrix: such as a `Hessian`.
        probes: random vectors of independent signs.
        steps: of Lanczos' method for each, with full reorthogonalisation; fewer where its space closes sooner.
        seed: of the probes.
        first: number of the first probe: those that several calls take are those of one.
        progress: called with (probes done, probes).
    """
    check_positive("probes", probes)
    check_positive("steps", steps)
    nodes, weights = [], []
    for k in range(probes):
        krylov = Krylov(matrix, signs(matrix.size, seed, first + k))
        while krylov.steps < steps and not krylov.closed:
            krylov.step()
        values, vectors = krylov.ritz()
        nodes.append(values)
        weights.append(vectors[0] ** 2)
        progress(k + 1, probes)
    return Quadrature(tuple(nodes), tuple(weights), matrix.size)


def hutchinson(matrix: Symmetric, *, probes: int = 100, seed: int = 0) -> Estimate:
    """tr H by the mean of v' H v over random signs v (Hutchinson 1990), one product each.

    The trace itself, from as many products as H has rows, is `hessian.trace()`.
    """
    found = []
    for k in range(check_positive("probes", probes)):
        v = signs(matrix.size, seed, k).to(matrix.device)
        found.append(float(v @ matrix.matmat(v.unsqueeze(1)).squeeze(1).double()))
    return _estimate(found)


def signs(size: int, seed: int, probe: int) -> Tensor:
    """(size,) independent signs, -1 or 1 alike, float64."""
    draw = torch.randint(0, 2, (size,), generator=stream(seed, "probe", probe))
    return draw.double().mul_(2).sub_(1)


def _estimate(values: list[float]) -> Estimate:
    error = float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else nan
    return Estimate(float(np.mean(values)), error)
