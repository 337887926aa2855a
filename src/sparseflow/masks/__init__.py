"""Which weights are active: how many (budgets), which (criteria, exact selection), when (rounds, gradually); files."""

from sparseflow.masks.apportion import round_half_up
from sparseflow.masks.budget import Budget, Density, Empty, budgets, count, uniform, without
from sparseflow.masks.criteria import Snapshot, criteria
from sparseflow.masks.examples import balanced
from sparseflow.masks.files import load, save
from sparseflow.masks.foreign import from_torch_prune, from_zeros, imported, read_state
from sparseflow.masks.matching import matching_rules
from sparseflow.masks.overlap import Overlap, overlap
from sparseflow.masks.overlap import total as total_overlap
from sparseflow.masks.paths import LayerPaths, Paths, effective
from sparseflow.masks.provenance import Provenance, misfits, shapes_of
from sparseflow.masks.prune import check_options, own_options, prune
from sparseflow.masks.rounds import next_round, rounds_to
from sparseflow.masks.select import Scores, best, random_masks, random_subset, select
from sparseflow.masks.tickets import shuffled
from sparseflow.masks.when import Gradual, exponential
from sparseflow.masks.which import Selection, Selector, matching, prunable

__all__ = [
    "Budget",
    "Density",
    "Empty",
    "Gradual",
    "LayerPaths",
    "Overlap",
    "Paths",
    "Provenance",
    "Scores",
    "Selection",
    "Selector",
    "Snapshot",
    "balanced",
    "best",
    "budgets",
    "check_options",
    "count",
    "criteria",
    "effective",
    "exponential",
    "from_torch_prune",
    "from_zeros",
    "imported",
    "load",
    "matching",
    "matching_rules",
    "misfits",
    "next_round",
    "overlap",
    "own_options",
    "prunable",
    "prune",
    "random_masks",
    "random_subset",
    "read_state",
    "round_half_up",
    "rounds_to",
    "save",
    "select",
    "shapes_of",
    "shuffled",
    "total_overlap",
    "uniform",
    "without",
]
