"""Search over layer densities (001 ch. 4): spaces, samplers, early stopping, and what the found vectors say."""

from sparseflow.search.bayes import bayes as _bayes  # noqa: F401  (enters its sampler)
from sparseflow.search.finals import final_runs, finals
from sparseflow.search.found import Found
from sparseflow.search.halving import Decision, Halving, Promoting, Rungs, Stopping, halvings
from sparseflow.search.importance import Importance, Importances, importances
from sparseflow.search.outcome import Tried, best_so_far, budget, median, tried, winner
from sparseflow.search.pareto import front
from sparseflow.search.programme import Search
from sparseflow.search.quest import Quest, quests, stored
from sparseflow.search.samplers import Suggestion, check_options, samplers, suggest
from sparseflow.search.space import Space, Vector
from sparseflow.search.spec import SearchSpec, TransferSpec, searches
from sparseflow.search.transfer import to_depth

__all__ = [
    "Decision",
    "Found",
    "Halving",
    "Importance",
    "Importances",
    "Promoting",
    "Quest",
    "Rungs",
    "Search",
    "SearchSpec",
    "Space",
    "Stopping",
    "Suggestion",
    "TransferSpec",
    "Tried",
    "Vector",
    "best_so_far",
    "budget",
    "check_options",
    "final_runs",
    "finals",
    "front",
    "halvings",
    "importances",
    "median",
    "quests",
    "samplers",
    "searches",
    "stored",
    "suggest",
    "to_depth",
    "tried",
    "winner",
]
