"""004's claims about tickets (sec. 4.3), judged from what was found: each one seen, not seen, or not tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from sparseflow.stats import Summary, smallest_p, summary, wilcoxon
from sparseflow.study.likened import Likened
from sparseflow.study.likeness_spec import ClaimsSpec
from sparseflow.study.paths import Way

Verdict = Literal["seen", "not seen", "not tested"]
Rule = Literal["seeds", "draws", "height", "examples"]

FEWEST_DRAWS = 3
"""Fresh starts, whose spread says where another one would lie."""


@dataclass(frozen=True)
class Claim:
    """A claim, the rule that it is judged by and the numbers that decide.

    Nearness, barriers and disagreement are to the reference unless the words say otherwise.

    Attributes:
        ticket, other: mean ± standard deviation (n) of what is compared, as text; empty where one is judged alone.
        decides: the p-value or the limit, as text; why not, where it was not tested.
    """

    words: str
    rule: Rule
    ticket: str
    other: str
    decides: str
    verdict: Verdict


def judge(found: Likened, how: ClaimsSpec) -> list[Claim]:
    """Every claim of 004 sec. 4.3 that the study's arms bear on."""
    one = _Judging(found, how)
    t = how.ticket
    claims = [
        one.draws(f"{t} starts nearer than fresh weights", one.start_distances),
        one.draws(f"loss falls sooner from the start of {t}", one.start_losses),
    ]
    claims += [one.seeds(f"{t} ends nearer than {s}", s, one.final_distances) for s in how.scratch]
    claims.append(one.flat(f"no barrier from {t}", t))
    claims += [one.barred(f"a barrier from {s}", s) for s in how.scratch]
    claims += [one.seeds(f"lower barrier from {t} than from {s}", s, one.heights) for s in how.scratch]
    claims += [one.seeds(f"{t} disagrees less than {s}", s, one.disagreements) for s in how.scratch]
    claims += [one.contrast(f"{t} disagrees less with itself than {s}", s, "disagreement") for s in how.scratch]
    others = [*how.scratch, *([how.pruned] if how.pruned is not None else [])]
    return claims + [one.contrast(f"ensemble of {t} gains less than of {other}", other, "gain") for other in others]


class _Judging:
    def __init__(self, found: Likened, how: ClaimsSpec) -> None:
        self._found, self._how = found, how
        self._seed = {member.label: member.seed for member in found.likeness.members}

    # What is measured, by seed ----------------------------------------------------------------------------------------

    def final_distances(self, group: str) -> dict[int, float]:
        places = self._found.likeness.places
        return {self._seed[p.label]: p.distance for p in places if p.group == group and p.moment == "final"}

    def disagreements(self, group: str) -> dict[int, float]:
        members = [m for m in self._found.likeness.members if m.group == group]
        return {m.seed: m.disagreement for m in members if m.disagreement is not None}

    def heights(self, group: str) -> dict[int, float]:
        return {self._seed[way.label]: way.path.height for way in self._ways(group, "final")}

    def _ways(self, group: str, moment: str) -> list[Way]:
        return [way for way in self._found.train_ways if way.group == group and way.moment == moment]

    # What is measured at starts, each different one once --------------------------------------------------------------

    def start_distances(self, groups: Sequence[str]) -> list[float]:
        return [self._found.likeness.places[k].distance for k in self._starts(groups)]

    def start_losses(self, groups: Sequence[str]) -> list[float]:
        """Mean losses over the points of the paths."""
        of = {way.label: float(np.mean(way.path.losses)) for way in self._found.train_ways}
        return [of[self._found.likeness.places[k].label] for k in self._starts(groups)]

    def _starts(self, groups: Sequence[str]) -> list[int]:
        alike = self._found.likeness
        found: list[int] = []
        for k, place in enumerate(alike.places):
            fresh = all(alike.between[k][other] > 0 for other in found)
            if place.group in groups and place.moment == "start" and fresh:
                found.append(k)
        return found

    # Rules ------------------------------------------------------------------------------------------------------------

    def seeds(self, words: str, other: str, measured: Callable[[str], Mapping[int, float]]) -> Claim:
        """Exact signed-rank test, one-sided, over the seeds that both arms have."""
        own, theirs = measured(self._how.ticket), measured(other)
        both = sorted(own.keys() & theirs.keys())
        if not both or (least := smallest_p(len(both), "less")) > self._how.alpha:
            why = f"{len(both)} seeds reach no p below {least:.3g}" if both else "no seeds in common"
            return Claim(words, "seeds", _text(own.values()), _text(theirs.values()), why, "not tested")
        test = wilcoxon([own[seed] - theirs[seed] for seed in both], alternative="less")
        verdict: Verdict = "seen" if test.p_value <= self._how.alpha else "not seen"
        return Claim(words, "seeds", _text(own.values()), _text(theirs.values()), f"p = {test.p_value:.3g}", verdict)

    def draws(self, words: str, measured: Callable[[Sequence[str]], list[float]]) -> Claim:
        """Whether the ticket lies below where another fresh draw would, by a prediction interval (Student's t)."""
        own, fresh = measured([self._how.ticket]), measured(self._how.scratch)
        if not own or len(fresh) < FEWEST_DRAWS:
            why = f"{len(fresh)} different fresh starts, and it takes {FEWEST_DRAWS}"
            return Claim(words, "draws", _text(own), _text(fresh), why, "not tested")
        of = summary(fresh)
        bound = of.mean - self._t(of) * of.std * sqrt(1 + 1 / of.n)
        verdict: Verdict = "seen" if max(own) < bound else "not seen"
        return Claim(words, "draws", _text(own), _text(fresh), f"another draw: above {bound:.4g}", verdict)

    def flat(self, words: str, group: str) -> Claim:
        """The mean height lies below what counts as a barrier (upper limit, Student's t)."""
        return self._height(words, group, 1)

    def barred(self, words: str, group: str) -> Claim:
        """The mean height lies above what counts as a barrier (lower limit, Student's t)."""
        return self._height(words, group, -1)

    def _height(self, words: str, group: str, side: int) -> Claim:
        heights = list(self.heights(group).values())
        ours = group == self._how.ticket
        texts = (_text(heights), "") if ours else ("", _text(heights))
        if len(heights) < 2:
            return Claim(words, "height", *texts, f"{len(heights)} paths, and it takes 2", "not tested")
        of = summary(heights)
        limit = of.mean + side * self._t(of) * of.std / sqrt(of.n)
        beyond = limit < self._how.barrier if side > 0 else limit > self._how.barrier
        name = "at most" if side > 0 else "at least"
        return Claim(words, "height", *texts, f"mean {name} {limit:.4g}", "seen" if beyond else "not seen")

    def contrast(self, words: str, other: str, which: Literal["gain", "disagreement"]) -> Claim:
        """The difference lies below 0 (upper limit over test examples, normal)."""
        ticket = self._how.ticket
        texts = self._mean(ticket, which), self._mean(other, which)
        for c in self._found.likeness.contrasts:
            if {c.first, c.second} == {ticket, other}:
                mean, error = (c.gain, c.gain_error) if which == "gain" else (c.disagreement, c.disagreement_error)
                difference = mean if c.first == ticket else -mean
                limit = difference + float(ndtri(1 - self._how.alpha)) * error
                verdict: Verdict = "seen" if limit < 0 else "not seen"
                return Claim(words, "examples", *texts, f"{difference:.4f}, at most {limit:.4f}", verdict)
        return Claim(words, "examples", *texts, "takes two networks in both groups", "not tested")

    def _mean(self, group: str, which: str) -> str:
        for row in self._found.likeness.rows:
            if row.group == group and which == "gain" and row.networks > 1:
                return f"{row.comparison.ensemble - row.comparison.accuracy.mean:.4f}"
            if row.group == group and which == "disagreement" and row.comparison.disagreement is not None:
                return f"{row.comparison.disagreement.mean:.4f}"
        return ""

    def _t(self, of: Summary) -> float:
        return float(stdtrit(of.n - 1, 1 - self._how.alpha))


def _text(values: Iterable[float]) -> str:
    numbers = list(values)
    if not numbers:
        return ""
    of = summary(numbers)
    return f"{of.mean:.4g}" + (f" ± {of.std:.2g}" if of.n > 1 else "") + f" ({of.n})"
