"""Which layers' densities matter for the score, by the vectors of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparseflow.core import BadValue, stream_seed
from sparseflow.search.samplers import Told
from sparseflow.search.space import Floats
from sparseflow.stats import kendall_tau

_FEWEST = 10  # runs: of fewer, resamples have next to nothing out of bag
_PERMUTATIONS = 20


@dataclass(frozen=True)
class Importance:
    """What one layer's density has to do with the score.

    Attributes:
        share: how much of the score's variance a forest explains less once the densities of this layer are permuted,
            on runs that it has not seen; about 0 for a layer that does not matter.
        low, high: percentile interval of the share over resamples of the runs.
        tau: Kendall's tau-b of density and score: positive if denser is better.
    """

    share: float
    low: float
    high: float
    tau: float


@dataclass(frozen=True)
class Importances:
    """Layer -> its importance, and how well the forest predicts runs that it has not seen.

    Attributes:
        explained: 1 - squared error / variance on runs left out, mean over resamples. Near 0 or below, the forest knows
            nothing, and neither do the shares.
        runs: with a finite score.
    """

    layers: Mapping[str, Importance]
    explained: float
    runs: int


def importances(
    names: Sequence[str], told: Told, seed: int = 0, *, resamples: int = 50, level: float = 0.8
) -> Importances:
    """Permutation importance (Breiman 2001, Machine Learning 45:5-32, sec. 10) over bootstrap resamples of the runs.

    Each resample grows a forest of 50 trees on runs drawn with replacement, and measures it on those that were not
    drawn: by how much its squared error there grows if one layer's densities are permuted among them (the mean of 20
    permutations), over the variance of all scores. The share is the mean over resamples. Runs without a finite score
    are left out. The interval says how the share depends on which runs there are; the runs of a Bayesian search are not
    independent of each other, and its interval is to be read with that in mind.

    Args:
        names: of the numbers of a vector, in order.
        level: of the interval.

    Raises:
        BadValue: for fewer than 10 runs with a finite score, scores that are all equal, vectors of another length than
            names, resamples below 2 or a level outside (0, 1).
    """
    if resamples < 2:
        raise BadValue(f"resamples must be at least 2, got {resamples}")
    if not 0.0 < level < 1.0:
        raise BadValue(f"level must be in (0, 1), got {level:g}")
    if wrong := next((len(v) for v, _ in told if len(v) != len(names)), None):
        raise BadValue(f"a vector has {len(names)} densities ({', '.join(names)}), got one of {wrong}")
    finite = [(v, score) for v, score in told if math.isfinite(score)]
    if len(finite) < _FEWEST:
        raise BadValue(f"importance needs at least {_FEWEST} runs with a finite score, got {len(finite)}")
    densities = np.array([v for v, _ in finite], dtype=np.float64)
    scores = np.array([score for _, score in finite], dtype=np.float64)
    variance = float(scores.var())
    if variance == 0.0:
        raise BadValue("all scores are equal, so no density can matter for them")
    found = [_resample(densities, scores, stream_seed(seed, "importance", k) % 2**32) for k in range(resamples)]
    shares = np.array([rise for rise, _ in found]) / variance
    edges = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    layers = {
        name: Importance(
            float(shares[:, k].mean()), float(edges[0, k]), float(edges[1, k]), kendall_tau(densities[:, k], scores)
        )
        for k, name in enumerate(names)
    }
    return Importances(layers, 1 - float(np.mean([error for _, error in found])) / variance, len(finite))


def _resample(densities: Floats, scores: Floats, seed: int) -> tuple[Floats, float]:
    """By how much the squared error on runs not drawn grows for each layer, and that error."""
    from sklearn.ensemble import RandomForestRegressor  # here: its imports take seconds

    numbers = np.random.default_rng(seed)
    out = np.empty(0, dtype=np.int64)
    while len(out) < 2:  # in a few runs hardly ever, and then there is nothing to measure on
        drawn = numbers.integers(0, len(scores), len(scores))
        out = np.setdiff1d(np.arange(len(scores)), drawn)
    forest = RandomForestRegressor(n_estimators=50, random_state=seed).fit(densities[drawn], scores[drawn])
    unseen, true = densities[out], scores[out]
    error = float(np.mean((forest.predict(unseen) - true) ** 2))
    layers = densities.shape[1]
    permuted = np.tile(unseen, (layers, _PERMUTATIONS, 1, 1))
    for k in range(layers):
        for some in permuted[k]:
            some[:, k] = numbers.permutation(some[:, k])
    predicted = forest.predict(permuted.reshape(-1, layers)).reshape(layers, -1, len(out))
    rise = np.mean((predicted - true) ** 2, axis=(1, 2)) - error
    return rise, error
