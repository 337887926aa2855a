"""Bayesian optimisation of density vectors, with the package `bayesian-optimization` that 001 used."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from sparseflow.core import BadValue, check_positive, stream_seed
from sparseflow.search.samplers import Suggestion, Told, by_chance, samplers
from sparseflow.search.space import Floats, Space, Vector

_CANDIDATES = 10_000  # drawn at random, of which the best
_STARTS = 10  # are where gradient ascent starts: the package's own numbers
_STEP = 1e-6  # of finite differences


@samplers.add("bayes", cite="001 sec. 4.3.2; Nogueira 2014, bayesian-optimization; UCB: Srinivas et al. 2010")
def bayes(
    space: Space,
    number: int,
    seed: int,
    told: Told = (),
    pending: Sequence[Sequence[float]] = (),
    *,
    kappa: float = 10.0,
    initial: int = 10,
    lie: Literal["min", "mean", "max"] = "mean",
) -> Suggestion:
    """Gaussian process (Matérn 5/2) over what has been tried; the largest upper confidence bound.

    mean(d) + kappa * deviation(d) is maximised over the vectors that obey the bounds, by way of the unit cube that
    stands for them (`Space.to_cube`). What is pending is put in with an invented score, a constant liar (Ginsbourger et
    al. 2010), so that several searches at a time do not crowd together. Where the maximum has been tried already, a
    vector by chance takes its place. The order of `told` and `pending` does not matter.

    Args:
        kappa: how much uncertainty is worth; 10 in the paper.
        initial: numbers below this, and all before the first score, are by chance: the very vectors that the sampler
            "random" gives them, so that both searches of a seed share their start.
        lie: score of what is pending: the worst, the mean or the best of the scores told.

    A run without a finite score counts as the worst that has one.

    Raises:
        BadValue: for a kappa below 0, initial below 1, or another lie.
    """
    if not (kappa >= 0 and math.isfinite(kappa)):
        raise BadValue(f"kappa must be a number from 0 on, got {kappa}")
    check_positive("initial", initial)
    if lie not in ("min", "mean", "max"):
        raise BadValue(f"lie must be min, mean or max, got {lie!r}")
    scores = _scores(told)
    if number < initial or not scores:
        return Suggestion(by_chance(space, number, seed, told, pending), "initial")
    known = sorted(scores.values())
    invented = {"min": known[0], "mean": math.fsum(known) / len(known), "max": known[-1]}[lie]
    for vector in pending:
        scores.setdefault(tuple(vector), invented)
    point = _best_point(
        np.array([space.to_cube(vector) for vector in sorted(scores)]),
        np.array([scores[vector] for vector in sorted(scores)]),
        kappa,
        stream_seed(seed, "search", "bayes", number) % 2**32,
    )
    vector = space.from_cube(point)
    if vector in scores:
        return Suggestion(by_chance(space, number, seed, told, pending), "random")
    return Suggestion(vector, "bayes")


def _scores(told: Told) -> dict[Vector, float]:
    """Vector -> its score, the mean if it has several; nothing if none is finite."""
    finite = [score for _, score in told if math.isfinite(score)]
    if not finite:
        return {}
    several: dict[Vector, list[float]] = {}
    for vector, score in told:
        several.setdefault(tuple(vector), []).append(score if math.isfinite(score) else min(finite))
    return {vector: math.fsum(sorted(found)) / len(found) for vector, found in several.items()}


def _best_point(points: Floats, scores: Floats, kappa: float, seed: int) -> Floats:
    """The point of the unit cube with the largest upper confidence bound, by the package's model."""
    from bayes_opt import BayesianOptimization  # here: its imports take seconds, and random search needs none
    from bayes_opt.acquisition import UpperConfidenceBound

    class Steepest(UpperConfidenceBound):
        """The package's bound, maximised with a whole gradient from one prediction instead of one for each density."""

        def suggest(self, gp: Any, target_space: Any, *_: Any, random_state: Any = None, **__: Any) -> Floats:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of scikit-learn, on length scales at their bounds
                gp.fit(target_space.params, target_space.target)

            def bound(some: Floats) -> Floats:
                return np.asarray(self.base_acq(*gp.predict(some, return_std=True)))

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of scikit-learn, on variances below 0 by rounding
                return _ascend(bound, random_state.uniform(size=(_CANDIDATES, target_space.params.shape[1])))

    names = [f"{k:06}" for k in range(points.shape[1])]
    search = BayesianOptimization(
        None,
        dict.fromkeys(names, (0.0, 1.0)),
        acquisition_function=Steepest(kappa=kappa),
        random_state=seed,
        verbose=0,
    )
    for point, score in zip(points, scores, strict=True):
        search.register(params=dict(zip(names, point, strict=True)), target=float(score))
    found = search.suggest()
    return np.array([found[name] for name in names])


def _ascend(value: Callable[[Floats], Floats], candidates: Floats) -> Floats:
    """The best point of the cube found from the best candidates on; candidates of shape (points, dimensions)."""
    from scipy.optimize import minimize

    def downwards(x: Floats) -> tuple[float, Floats]:
        values = value(np.vstack([x, x + _STEP * np.eye(x.size)]))
        return -float(values[0]), -(values[1:] - values[0]) / _STEP

    values = value(candidates)
    starts = np.argsort(-values, kind="stable")[:_STARTS]
    best, most = candidates[starts[0]], values[starts[0]]
    for start in starts:
        found = minimize(
            downwards, candidates[start], jac=True, method="L-BFGS-B", bounds=[(0, 1)] * candidates.shape[1]
        )
        if -found.fun > most:
            best, most = found.x, -found.fun
    return np.asarray(best)
