"""Named arms: which point of a grid is chosen, and what the paired tests are."""

from __future__ import annotations

from math import isnan, log

import pytest

from arms_results import GRID, ended, facts, results_of, study
from sparseflow.report.arms_tables import reachable
from sparseflow.study import DataFacts, arm_results, arms_of, choose


def chosen(scores, *, score="val", other=0.9):
    """The label chosen when each rate's runs end so; a score may be a status instead of a number."""
    spec = study(GRID, grid_seeds=len(scores[0]), score=score)
    (arm,) = arms_of(spec)
    runs = {}
    for point, of_point in zip(arm.points, scores, strict=True):
        for seed, value in zip(spec.choice_seeds, of_point, strict=True):
            if isinstance(value, str):
                runs[point.at(seed).name] = ended(value)
            elif value is not None:
                splits = {"val": value, "test": other} if score == "val" else {"test": value, "val": other}
                runs[point.at(seed).name] = ended(**splits)
    choice = choose(spec, arm, results_of(runs), facts)
    return choice.winner.label if choice.winner else None, choice


def test_the_highest_mean_wins_not_the_highest_run():
    assert chosen([(0.2, 0.9), (0.6, 0.61), (0.5, 0.6)])[0] == "lr 0.01"


def test_the_split_that_was_asked_for_decides():
    assert chosen([(0.1,), (0.2,), (0.3,)], score="val", other=0.9)[0] == "lr 0.001"
    assert chosen([(0.2,), (0.3,), (0.1,)], score="test", other=0.9)[0] == "lr 0.01"


def test_the_first_of_equal_points_wins_in_spite_of_rounding():
    a, b = (0.1, 0.2, 0.3), (0.3, 0.2, 0.1)
    assert sum(a) != sum(b)
    assert chosen([(0.0,) * 3, a, b])[0] == "lr 0.01"
    assert chosen([(0.0,) * 3, b, a])[0] == "lr 0.01"


def test_a_diverged_run_counts_as_guessing():
    """One run at 0.7 and one diverged average to (0.7 + 0.1) / 2 = 0.4."""
    label, choice = chosen([("diverged", 0.7), (0.41, 0.41), (0.3, 0.3)])
    assert label == "lr 0.01"
    assert [p.mean for p in choice.points] == pytest.approx([0.4, 0.41, 0.3])
    assert [p.diverged for p in choice.points] == [1, 0, 0]
    assert chosen([("diverged", 0.7), (0.39, 0.39), (0.3, 0.3)])[0] == "lr 0.1"
    assert chosen([("diverged",)] * 3)[0] == "lr 0.1"


@pytest.mark.parametrize("open_run", [None, "failed", "stopped"])
def test_nothing_is_chosen_before_every_run_has_ended(open_run):
    label, choice = chosen([(0.9, 0.9), (0.1, open_run), (0.1, 0.1)])
    assert label is None
    assert isnan(choice.points[1].mean)
    assert choice.points[1].ended == 1


def outcomes(spec, of_arm):
    """Results in which each arm's runs on the study's seeds have these test accuracies."""
    arms = {arm.name: arm for arm in arms_of(spec)}
    runs = {}
    for name, values in of_arm.items():
        for seed, value in zip(spec.run_seeds, values, strict=True):
            result = ended(value) if isinstance(value, str) else value is not None and ended(test=value, loss=2 * value)
            if result:
                runs[arms[name].points[0].at(seed).name] = result
    return results_of(runs)


def analysed(spec, of_arm):
    return {r.arm.name: r for r in arm_results(spec, arms_of(spec), outcomes(spec, of_arm), facts)}


ARMS = {"dense": {}, "b": {"mask": {"density": 0.5}}, "c": {"mask": {"density": 0.2}}}


def test_pairs_are_of_one_seed_and_exact():
    """Three equal signs of distinct sizes: W+ = 6, p = 2 / 2^3; b's zeros and ties by hand, W+ = 1.5 + 3 of 6."""
    spec = study(ARMS, versus="dense")
    r = analysed(spec, {"dense": (0.5, 0.6, 0.7), "b": (0.52, 0.64, 0.76), "c": (0.48, 0.62, 0.74)})
    assert r["dense"].against is None
    b, c = r["b"].against.test, r["c"].against.test
    assert (b.statistic, b.p_value, b.smallest_p, b.pairs) == (6, 0.25, 0.25, 3)
    assert r["b"].against.estimate.estimate == pytest.approx(0.04)
    # |d| = 0.02, 0.02, 0.04: mid-ranks 1.5, 1.5, 3; as images of 50 the first two are ties, as floats they are not.
    assert c.ties
    assert c.statistic == 4.5
    assert r["b"].against.holm == 0.5
    one_sided = study(ARMS, versus="dense", statistics={"alternative": "greater"})
    r = analysed(one_sided, {"dense": (0.5, 0.6, 0.7), "b": (0.52, 0.64, 0.76), "c": (0.5, 0.6, 0.7)})
    assert (r["b"].against.test.p_value, r["c"].against.test.p_value) == (0.125, 1.0)


def test_only_seeds_that_ended_in_both_make_pairs():
    spec = study(ARMS, versus="dense")
    r = analysed(spec, {"dense": (0.5, None, 0.7), "b": (0.52, 0.64, None), "c": (None, 0.6, None)})
    assert r["b"].against.test.pairs == 1
    assert r["c"].against.test is None
    assert (r["dense"].missing, r["b"].missing, r["c"].missing) == (1, 1, 2)
    assert r["b"].against.holm == 1.0
    assert isnan(r["c"].against.holm)


def test_a_diverged_arm_is_at_chance_or_out():
    of_arm = {"dense": (0.5, 0.6, 0.7), "b": ("diverged", 0.6, 0.7), "c": (0.5, 0.6, 0.7)}
    r = analysed(study(ARMS, versus="dense"), of_arm)["b"]
    assert (r.diverged, r.missing, r.members[0].accuracy, r.members[0].loss) == (1, 0, 0.1, log(10))
    assert r.accuracy == pytest.approx((0.1 + 0.6 + 0.7) / 3)
    out = analysed(study(ARMS, versus="dense", statistics={"diverged": "nan"}), of_arm)["b"]
    assert (out.diverged, out.against.test.pairs, out.accuracy) == (1, 2, pytest.approx(0.65))


def test_arms_on_other_data_are_not_tested():
    spec = study({"dense": {}, "other": {"data": {"name": "mnist"}}}, versus="dense")

    def by_name(run):
        return DataFacts(run.data.name, (1, 8, 8), 10, 100, 50, run.data.name)

    of_arm = {"dense": (0.5,) * 3, "other": (0.6,) * 3}
    assert [r.against for r in arm_results(spec, arms_of(spec), outcomes(spec, of_arm), by_name)] == [None, None]


def test_what_so_many_seeds_can_reach_is_said():
    spec = study(ARMS)
    assert reachable(3, 2, spec) == (
        "With 3 seeds no p below 0.25 is possible, so no arm can be significant at 0.05 whatever it shows: a single "
        "test needs 6 seeds, 2 corrected together 7."
    )
    assert "after the correction be significant" in reachable(6, 2, spec)
    assert reachable(7, 2, spec) == "With 7 seeds no p below 0.016 is possible, 0.031 after the correction for 2 tests."
