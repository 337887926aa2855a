"""Statistics of paired comparisons: signed-rank test, location, multiple testing, power, rank correlation."""

from sparseflow.stats.kendall import TauAverage, average_abs_tau, kendall_tau
from sparseflow.stats.location import Estimate, hodges_lehmann
from sparseflow.stats.multiple import benjamini_hochberg, holm
from sparseflow.stats.power import detectable_effect, pairs_needed, signed_rank_power
from sparseflow.stats.summary import Summary, summary
from sparseflow.stats.wilcoxon import WilcoxonResult, smallest_p, wilcoxon

__all__ = [
    "Estimate",
    "Summary",
    "TauAverage",
    "WilcoxonResult",
    "average_abs_tau",
    "benjamini_hochberg",
    "detectable_effect",
    "hodges_lehmann",
    "holm",
    "kendall_tau",
    "pairs_needed",
    "signed_rank_power",
    "smallest_p",
    "summary",
    "wilcoxon",
]
