"""Whether what a paper's text claims of a table or figure is seen in what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any, Literal

from sparseflow.reproduce.agreement import LEVEL
from sparseflow.reproduce.items import PaperClaim
from sparseflow.reproduce.measured import QUANTITY, Measured
from sparseflow.reproduce.source import Observed, by_pair
from sparseflow.stats import smallest_p, wilcoxon

Verdict = Literal["seen", "in line", "not seen", "contradicted", "cannot tell", "not judged"]
"""seen: the paired test finds it at 0.05. in line: the claim is that one thing does *not* beat another, which no test
can find, and none finds that it does. contradicted: the test finds the opposite. not seen: none of these. cannot tell:
no number of pairs that could. not judged: the claim is in words that no rule here covers."""

_MOST_EXACT = 500


@dataclass(frozen=True)
class Judged:
    """A claim and what was found.

    Attributes:
        evidence: in words, with the numbers.
        pairs, difference, p: of a claim of more, what it rests on; p is one-sided and exact.
    """

    claim: PaperClaim
    verdict: Verdict
    evidence: str
    pairs: int = 0
    difference: float = nan
    p: float = nan


def judge(
    claim: PaperClaim,
    runs: Sequence[Observed],
    read: Callable[[str, str], Measured | None],
    quantity: str,
) -> Judged:
    """Hold a claim against finished runs.

    Args:
        runs: that have ended; or cells of a table whose numbers are of several runs each.
        read: the p-value of (row, column) of the item's table.
        quantity: what is compared where the claim names nothing.
    """
    if claim.more is not None:
        return _more(claim, claim.more, runs, quantity)
    if claim.significant or claim.not_significant:
        return _sides(claim, read)
    return Judged(claim, "not judged", "")


def _sides(claim: PaperClaim, read: Callable[[str, str], Measured | None]) -> Judged:
    wanted = [(place, True) for place in claim.significant] + [(place, False) for place in claim.not_significant]
    found = [(read(*place), below) for place, below in wanted]
    told = [(m, below) for m, below in found if m is not None and m.is_p and m.smallest < LEVEL]
    if not told:
        return Judged(claim, "cannot tell", "no cell has pairs enough")
    right = sum((m.value < LEVEL) == below for m, below in told)
    words = f"{right} of {len(told)} cells"
    if right < len(told):
        return Judged(claim, "not seen", words)
    if len(told) < len(wanted):
        return Judged(claim, "cannot tell", f"{words}, of {len(wanted)} that the claim names")
    return Judged(claim, "seen" if claim.significant else "in line", words)


def _more(
    claim: PaperClaim, sides: tuple[Mapping[str, Any], Mapping[str, Any]], runs: Sequence[Observed], default: str
) -> Judged:
    quantities = {str(side.get("quantity", default)) for side in sides}
    (quantity,) = quantities if len(quantities) == 1 else ("",)
    if not any(quantity in run.values for run in runs):
        return Judged(claim, "not judged", f"no number of a run is its {quantity}" if quantity else "")
    larger, smaller = ({axis: label for axis, label in side.items() if axis != "quantity"} for side in sides)
    unknown = sorted({axis for axis in (*larger, *smaller) if not any(axis in run.labels for run in runs)})
    if unknown:
        return Judged(claim, "not judged", f"runs have no {', '.join(unknown)}")
    told_apart = {axis for axis in (*larger, *smaller) if larger.get(axis) != smaller.get(axis)}
    known = [run for run in runs if quantity in run.values]
    one, other = (by_pair([run for run in known if run.has(side)], told_apart, quantity) for side in (larger, smaller))
    differences = [fmean(one[key]) - fmean(other[key]) for key in one if key in other]
    if not differences:
        return Judged(claim, "cannot tell", "no runs of both kinds have ended")
    mean = fmean(differences)
    method: Literal["exact", "normal"] = "exact" if len(differences) <= _MOST_EXACT else "normal"
    ahead = wilcoxon(differences, method=method).p_value
    behind = wilcoxon([-d for d in differences], method=method).p_value
    verdict: Verdict = "seen" if ahead < LEVEL else "contradicted" if behind < LEVEL else "not seen"
    if verdict == "not seen" and smallest_p(len(differences)) >= LEVEL:
        verdict = "cannot tell"
    words = f"{_named(quantity, larger, smaller)} {mean:+.3g} on average over {len(differences)} pairs, p = {ahead:.2g}"
    return Judged(claim, verdict, words, len(differences), mean, ahead)


def _named(quantity: str, larger: Mapping[str, Any], smaller: Mapping[str, Any]) -> str:
    """A quantity in words; a table that holds several names the one in its cells."""
    cell = larger.get(QUANTITY)
    named = str(cell) if cell is not None and cell == smaller.get(QUANTITY) else quantity
    return {"accuracy": "accuracy (points)"}.get(named, named)
