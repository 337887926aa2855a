"""004's claims judged on made-up numbers: seen where they carry it, not seen where they do not, else not tested."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from statistics import mean, stdev

import numpy as np
import pytest

from sparseflow.measure.interpolate import Path
from sparseflow.measure.similarity import Comparison
from sparseflow.stats import summary
from sparseflow.study import ClaimsSpec, Likened, LikenessRow, judge
from sparseflow.study.paths import Way
from sparseflow.study.similar import Contrast, Likeness, Member, Place

HOW = ClaimsSpec(ticket="t", scratch=("s", "d"), pruned="p")
DRAWS = (10.0, 10.1, 9.9, 10.2, 9.8)  # starts of d
NEARER = {"t": 1.0, "s": 8.0, "d": 8.0, "p": 9.0}
T_ONE_SIDED = {4: 2.131846786, 5: 2.015048373}  # 95 %, by degrees of freedom


def found(
    seeds=5, start=6.0, end=None, apart=None, height=None, contrast=(-0.01, 0.001), start_loss=0.5, shared_scratch=10.3
):
    """Everything as 004 has it, but for what is given."""
    end = {**NEARER, **(end or {})}
    apart = {"t": 0.01, "s": 0.03, "d": 0.03, "p": 0.02, **(apart or {})}
    height = {"t": 0.0, "s": 1.0, "d": 1.0, "p": 1.0, **(height or {})}
    places, members, ways = [], [], []
    for group in end:
        for seed in range(1, seeds + 1):
            label = f"{group}@{seed}"
            begun = {"t": start, "s": shared_scratch, "d": DRAWS[seed - 1], "p": 7.0 + seed}[group]
            jitter = 0.001 * seed
            places.append(Place(f"{label}#start", group, "start", 0.0, 0.0, begun))
            places.append(Place(label, group, "final", 0.0, 0.0, end[group] + jitter))
            members.append(Member(label, group, seed, 0.98, apart[group] + jitter))
            losses = (0.1, 0.1 + height[group] + (jitter if height[group] else 0.0), 0.05)
            ways.append(Way(label, group, "final", 10, Path((0.0, 0.5, 1.0), losses, None)))
            early = (start_loss if group == "t" else 2.0 + 0.01 * begun,) * 3
            ways.append(Way(f"{label}#start", group, "start", 10, Path((0.0, 0.5, 1.0), early, None)))
    alone = np.array([place.distance if place.moment == "start" else 100.0 + k for k, place in enumerate(places)])
    between = np.abs(alone[:, None] - alone[None, :])  # equal starts are 0 apart
    pairs = summary([0.01, 0.02])
    whole = Comparison(summary([0.97] * seeds), 0.98, pairs, pairs, 0.1, pairs, pairs, pairs, pairs)
    rows = tuple(LikenessRow(group, seeds, whole, None, None, None) for group in end)
    # The ticket is now the first, now the second of two.
    contrasts = (Contrast("t", "s", *contrast, *contrast), Contrast("d", "t", -contrast[0], contrast[1], -contrast[0],
                 contrast[1]), Contrast("t", "p", *contrast, *contrast))  # fmt: skip
    alike = Likeness("p@0", 100, rows, tuple(places), between, tuple(members), contrasts)
    return Likened(alike, tuple(ways), ())


def verdicts(of, how=HOW):
    return {claim.words: claim.verdict for claim in judge(of, how)}


def test_what_004_reports_is_seen_in_every_claim():
    said = verdicts(found())
    assert len(said) == 2 + 2 + 1 + 2 + 2 + 2 + 2 + 3
    assert set(said.values()) == {"seen"}


@pytest.mark.parametrize(
    ("change", "turned"),
    [
        ({"start": 9.7}, {"t starts nearer than fresh weights"}),
        ({"start_loss": 2.0995}, {"loss falls sooner from the start of t"}),
        ({"end": {"t": 8.0}}, {"t ends nearer than s", "t ends nearer than d"}),
        ({"end": {"s": 0.5}}, {"t ends nearer than s"}),
        ({"apart": {"d": 0.01}}, {"t disagrees less than d"}),
        ({"height": {"t": 0.03}}, {"no barrier from t"}),
        ({"height": {"s": 0.01}}, {"a barrier from s"}),
        ({"height": {"s": 0.0}}, {"a barrier from s", "lower barrier from t than from s"}),
        (
            {"contrast": (-0.01, 0.007)},
            {
                *(f"t disagrees less with itself than {other}" for other in "sd"),
                *(f"ensemble of t gains less than of {other}" for other in "sdp"),
            },
        ),
    ],
)  # fmt: skip
def test_numbers_that_do_not_carry_a_claim_turn_it_and_no_other(change, turned):
    said = verdicts(found(**change))
    assert {words for words, verdict in said.items() if verdict == "not seen"} == turned
    assert {verdict for words, verdict in said.items() if words not in turned} == {"seen"}


def test_a_start_counts_once_and_the_bound_is_that_of_another_draw():
    """Six different fresh starts: one of s, five of d; the limit by hand."""
    fresh = [10.3, *DRAWS]
    bound = mean(fresh) - T_ONE_SIDED[5] * stdev(fresh) * sqrt(1 + 1 / 6)
    name = "t starts nearer than fresh weights"
    for start, verdict in ((bound - 1e-6, "seen"), (bound + 1e-6, "not seen")):
        claim = next(c for c in judge(found(start=start), HOW) if c.words == name)
        assert claim.verdict == verdict
        assert claim.ticket.endswith("(1)")
        assert claim.other.endswith("(6)")
        assert f"{bound:.4g}" in claim.decides


def test_a_mean_height_is_held_against_its_limit():
    of = [0.01 + 0.001 * seed for seed in range(1, 6)]
    limits = [mean(of) + side * T_ONE_SIDED[4] * stdev(of) / sqrt(5) for side in (1, -1)]
    for barrier, flat, barred in ((limits[0] + 1e-9, True, False), (limits[0] - 1e-9, False, False),
                                  (limits[1] - 1e-9, False, True)):  # fmt: skip
        how = HOW.model_copy(update={"barrier": barrier})
        said = verdicts(found(height={"t": 0.01, "s": 0.01, "d": 0.01}), how)
        assert said["no barrier from t"] == ("seen" if flat else "not seen")
        assert said["a barrier from s"] == ("seen" if barred else "not seen")


def test_too_few_of_anything_is_not_tested():
    four = verdicts(found(seeds=4))
    of_seeds = {words for words in four if " than s" in words or " than d" in words or "than from" in words}
    of_seeds -= {words for words in four if "itself" in words or "ensemble" in words}
    assert len(of_seeds) == 6
    assert {words for words, verdict in four.items() if verdict == "not tested"} == of_seeds  # 1/16 is above 0.05
    assert "not tested" not in verdicts(found(seeds=4), HOW.model_copy(update={"alpha": 0.1})).values()
    one = found(seeds=1, shared_scratch=DRAWS[0])
    one = replace(one, likeness=replace(one.likeness, contrasts=()))
    assert set(verdicts(one).values()) == {"not tested"}
