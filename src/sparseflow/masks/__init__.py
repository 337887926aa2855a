"""Which weights are active: how many (budgets), which (criteria, exact selection), when (rounds, gradually)."""

from sparseflow.masks.apportion import round_half_up
from sparseflow.masks.budget import Budget, Density, Empty, budgets, count, uniform, without
from sparseflow.masks.criteria import Snapshot, criteria
from sparseflow.masks.examples import balanced
from sparseflow.masks.matching import matching_rules
from sparseflow.masks.prune import check_options, prune
from sparseflow.masks.rounds import next_round, rounds_to
from sparseflow.masks.select import Scores, random_masks, random_subset, select
from sparseflow.masks.tickets import shuffled
from sparseflow.masks.when import Gradual, exponential
from sparseflow.masks.which import Selection, Selector, matching, prunable

__all__ = [
    "Budget",
    "Density",
    "Empty",
    "Gradual",
    "Scores",
    "Selection",
    "Selector",
    "Snapshot",
    "balanced",
    "budgets",
    "check_options",
    "count",
    "criteria",
    "exponential",
    "matching",
    "matching_rules",
    "next_round",
    "prunable",
    "prune",
    "random_masks",
    "random_subset",
    "round_half_up",
    "rounds_to",
    "select",
    "shuffled",
    "uniform",
    "without",
]
