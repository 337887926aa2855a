"""Search over layer densities (001 ch. 4): spaces, samplers, early stopping, and what the found vectors say."""

from sparseflow.search.bayes import bayes as _bayes  # noqa: F401  (enters its sampler)
from sparseflow.search.halving import Decision, Halving, Promoting, Rungs, Stopping, halvings
from sparseflow.search.samplers import Suggestion, check_options, samplers, suggest
from sparseflow.search.space import Space, Vector

__all__ = [
    "Decision",
    "Halving",
    "Promoting",
    "Rungs",
    "Space",
    "Stopping",
    "Suggestion",
    "Vector",
    "check_options",
    "halvings",
    "samplers",
    "suggest",
]
