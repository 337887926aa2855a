"""What is asked and how it is carried out: specifications, runs, the store, the pool, the statistics of pairs."""

from sparseflow.models import maximum_width
from sparseflow.study.analysis import (
    MEMBERS,
    OUTCOMES,
    CellResult,
    DataFacts,
    MemberResult,
    PairResult,
    Series,
    TauRow,
    average_over_points,
    compare_cells,
    kendall_rows,
    smallest_effect,
)
from sparseflow.study.build import Network, active_per_layer, build, optimizer_for, plan_for
from sparseflow.study.compare import Cell, CompareSpec, Pair, cells, runs_of, widths_of
from sparseflow.study.drive import Interrupted, Tally, Watcher, drive
from sparseflow.study.estimate import Estimator
from sparseflow.study.finding import masks_digest, predecessor, with_predecessors
from sparseflow.study.groups import grouped
from sparseflow.study.pool import Event
from sparseflow.study.read import assign, presets, read_preset, validate
from sparseflow.study.run import DataCache, RunResult, Surroundings, execute, execute_group
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, Store, now

__all__ = [
    "DONE",
    "MEMBERS",
    "OUTCOMES",
    "Cell",
    "CellResult",
    "CompareSpec",
    "DataCache",
    "DataFacts",
    "Estimator",
    "Event",
    "Interrupted",
    "MemberResult",
    "Network",
    "Pair",
    "PairResult",
    "RunResult",
    "RunSpec",
    "Series",
    "Store",
    "Surroundings",
    "Tally",
    "TauRow",
    "Watcher",
    "active_per_layer",
    "assign",
    "average_over_points",
    "build",
    "cells",
    "compare_cells",
    "drive",
    "execute",
    "execute_group",
    "grouped",
    "kendall_rows",
    "masks_digest",
    "maximum_width",
    "now",
    "optimizer_for",
    "plan_for",
    "predecessor",
    "presets",
    "read_preset",
    "runs_of",
    "smallest_effect",
    "validate",
    "widths_of",
    "with_predecessors",
]
