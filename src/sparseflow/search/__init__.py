"""Search over layer densities (001 ch. 4): spaces, samplers, early stopping, and what the found vectors say."""

from sparseflow.search.bayes import bayes as _bayes  # noqa: F401  (enters its sampler)
from sparseflow.search.halving import Decision, Halving, Promoting, Rungs, Stopping, halvings
from sparseflow.search.importance import Importance, Importances, importances
from sparseflow.search.pareto import front
from sparseflow.search.samplers import Suggestion, check_options, samplers, suggest
from sparseflow.search.space import Space, Vector
from sparseflow.search.transfer import to_depth

__all__ = [
    "Decision",
    "Halving",
    "Importance",
    "Importances",
    "Promoting",
    "Rungs",
    "Space",
    "Stopping",
    "Suggestion",
    "Vector",
    "check_options",
    "front",
    "halvings",
    "importances",
    "samplers",
    "suggest",
    "to_depth",
]
