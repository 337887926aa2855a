"""What is asked and how it is carried out: specifications, runs, the store, the pool, the statistics of pairs."""

from sparseflow.models import maximum_width
from sparseflow.study.analysis import (
    MEMBERS,
    OUTCOMES,
    CellResult,
    MemberResult,
    PairResult,
    Series,
    TauRow,
    average_over_points,
    compare_cells,
    kendall_rows,
    smallest_effect,
)
from sparseflow.study.arms import Arm, Point, arms_of, compared, references
from sparseflow.study.arms_analysis import (
    Against,
    ArmResult,
    Choice,
    PointScore,
    arm_results,
    choose,
    first_runs,
    winners,
)
from sparseflow.study.arms_spec import ArmsSpec
from sparseflow.study.build import (
    Network,
    active_at_the_end,
    active_per_layer,
    build,
    module_names,
    optimizer_for,
    plan_for,
    total_weights,
)
from sparseflow.study.claims import Claim, judge
from sparseflow.study.cluster import Cluster
from sparseflow.study.compare import Cell, CompareSpec, Pair, cells, runs_of, widths_of
from sparseflow.study.curved import Cost, Curvature, Curved, curved
from sparseflow.study.draws import DrawFile
from sparseflow.study.drive import Desk, Interrupted, Planned, Programme, Results, Sequel, Tally, Watcher, drive
from sparseflow.study.estimate import Estimator
from sparseflow.study.facts import DataFacts, FactsBook, FactsOf, facts_of
from sparseflow.study.finding import masks_digest
from sparseflow.study.finished import Finished, Group, find_group, find_groups
from sparseflow.study.groups import grouped
from sparseflow.study.likened import Likened, compare_networks
from sparseflow.study.likened import asked as likeness_asked
from sparseflow.study.likened import known as likened
from sparseflow.study.likeness_spec import ClaimsSpec, LikenessSpec
from sparseflow.study.lineage import legacy, predecessor, with_predecessors
from sparseflow.study.parts import PartFile
from sparseflow.study.paths import Way, Ways, ways
from sparseflow.study.place import has_results, server_url, store_of
from sparseflow.study.pool import Pool
from sparseflow.study.read import assign, load_yaml, overlay, presets, read_preset, validate
from sparseflow.study.reload import Loaded, Which, reload
from sparseflow.study.run import DataCache, Rungs, RunResult, execute, execute_group
from sparseflow.study.similar import Likeness, likeness
from sparseflow.study.similar import Row as LikenessRow
from sparseflow.study.spec import RunSpec
from sparseflow.study.store import DONE, ENDED, Store, Trial, Verdict, now
from sparseflow.study.supply import Event, Executor, Listed, Supply, Task
from sparseflow.study.surroundings import Surroundings
from sparseflow.study.terrain import Look, Terrain, terrain
from sparseflow.study.tosted import ALL_TWEAKS
from sparseflow.study.zeros import NetworkZeros, zeros_of

__all__ = [
    "ALL_TWEAKS",
    "DONE",
    "ENDED",
    "MEMBERS",
    "OUTCOMES",
    "Against",
    "Arm",
    "ArmResult",
    "ArmsSpec",
    "Cell",
    "CellResult",
    "Choice",
    "Claim",
    "ClaimsSpec",
    "Cluster",
    "CompareSpec",
    "Cost",
    "Curvature",
    "Curved",
    "DataCache",
    "DataFacts",
    "Desk",
    "DrawFile",
    "Estimator",
    "Event",
    "Executor",
    "FactsBook",
    "FactsOf",
    "Finished",
    "Group",
    "Interrupted",
    "Likened",
    "Likeness",
    "LikenessRow",
    "LikenessSpec",
    "Listed",
    "Loaded",
    "Look",
    "MemberResult",
    "Network",
    "NetworkZeros",
    "Pair",
    "PairResult",
    "PartFile",
    "Planned",
    "Point",
    "PointScore",
    "Pool",
    "Programme",
    "Results",
    "RunResult",
    "RunSpec",
    "Rungs",
    "Sequel",
    "Series",
    "Store",
    "Supply",
    "Surroundings",
    "Tally",
    "Task",
    "TauRow",
    "Terrain",
    "Trial",
    "Verdict",
    "Watcher",
    "Way",
    "Ways",
    "Which",
    "active_at_the_end",
    "active_per_layer",
    "arm_results",
    "arms_of",
    "assign",
    "average_over_points",
    "build",
    "cells",
    "choose",
    "compare_cells",
    "compare_networks",
    "compared",
    "curved",
    "drive",
    "execute",
    "execute_group",
    "facts_of",
    "find_group",
    "find_groups",
    "first_runs",
    "grouped",
    "has_results",
    "judge",
    "kendall_rows",
    "legacy",
    "likened",
    "likeness",
    "likeness_asked",
    "load_yaml",
    "masks_digest",
    "maximum_width",
    "module_names",
    "now",
    "optimizer_for",
    "overlay",
    "plan_for",
    "predecessor",
    "presets",
    "read_preset",
    "references",
    "reload",
    "runs_of",
    "server_url",
    "smallest_effect",
    "store_of",
    "terrain",
    "total_weights",
    "validate",
    "ways",
    "widths_of",
    "winners",
    "with_predecessors",
    "zeros_of",
]
