"""Asynchronous successive halving: by hand, by brute force, as Ray Tune decides, and from its own record."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sparseflow.core import BadValue
from sparseflow.search import Decision, Promoting, Rungs, Stopping, halvings

SETTINGS = [(1, 16, 2), (3, 100, 2), (1, 27, 3), (2, 50, 4), (5, 5, 2), (1, 243, 3), (7, 10, 2)]


def learning_curves(numbers: np.random.Generator, runs: int, epochs: int) -> np.ndarray:
    """Scores of shape (runs, epochs) that rise to a level of their own, with noise and, in part, ties."""
    level, rate = numbers.random((runs, 1)), 10 ** numbers.uniform(-2, 0, (runs, 1))
    curves = level * (1 - np.exp(-rate * np.arange(1, epochs + 1))) + 0.05 * numbers.standard_normal((runs, epochs))
    return np.round(curves, 1) if numbers.random() < 0.5 else curves


def order_of_reports(numbers: np.random.Generator, runs: int, epochs: int) -> list[int]:
    """Whose epoch is next: up to four runs at a time, in an order of chance."""
    waiting, left, order = list(range(runs)), {}, []
    while waiting or left:
        while waiting and len(left) < 4:
            left[waiting.pop(0)] = epochs
        run = int(numbers.choice(list(left)))
        order.append(run)
        left[run] -= 1
        if not left[run]:
            del left[run]
    return order


def lengths(rule: Stopping, curves: np.ndarray, order: list[int]) -> list[int]:
    """After how many epochs each run ends, and that nobody reports once it has."""
    epochs, stopped = [0] * len(curves), set()
    for run in order:
        if run in stopped:
            continue
        epochs[run] += 1
        if epochs[run] in rule.rungs.epochs:
            rung = rule.rungs.epochs.index(epochs[run])
            if not rule.judge(rung, str(run), float(curves[run, epochs[run] - 1])):
                stopped.add(run)
    return epochs


def rays_lengths(min_epochs: int, max_epochs: int, eta: int, curves: np.ndarray, order: list[int]) -> list[int]:
    schedulers = pytest.importorskip("ray.tune.schedulers")

    class Trial:
        def __init__(self, run: int) -> None:
            self.trial_id = str(run)

    scheduler = schedulers.ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=max_epochs, grace_period=min_epochs, reduction_factor=eta
    )
    trials = [Trial(run) for run in range(len(curves))]
    epochs, stopped = [0] * len(curves), set()
    for run in order:
        if run in stopped:
            continue
        if not epochs[run]:
            scheduler.on_trial_add(None, trials[run])
        epochs[run] += 1
        result = {"epoch": epochs[run], "score": float(curves[run, epochs[run] - 1])}
        if scheduler.on_trial_result(None, trials[run], result) == "STOP":
            stopped.add(run)
    return epochs


def brute_force_lengths(min_epochs: int, max_epochs: int, eta: int, curves: np.ndarray, order: list[int]) -> list[int]:
    """The rule once more, with the quantile written out: linear between the two nearest of the sorted scores."""
    seen: dict[int, list[float]] = {}
    epochs, stopped = [0] * len(curves), set()
    milestones = {min_epochs * eta**k for k in range(20)}
    for run in order:
        if run in stopped:
            continue
        epochs[run] += 1
        if epochs[run] not in milestones or epochs[run] >= max_epochs:
            continue
        score, before = float(curves[run, epochs[run] - 1]), seen.setdefault(epochs[run], [])
        if before:
            place = (len(before) - 1) * (eta - 1) / eta
            ranked, below = sorted(before), (len(before) - 1) * (eta - 1) // eta
            above = min(below + 1, len(before) - 1)
            cutoff = ranked[below] + (place - below) * (ranked[above] - ranked[below])
            if score < cutoff:
                stopped.add(run)
        before.append(score)
    return epochs


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_stopping_decides_as_ray_tune_does(setting):
    """40 random searches of each setting: up to 25 runs, four at a time, every epoch reported."""
    pytest.importorskip("ray.tune")
    stops = 0
    for seed in range(40):
        numbers = np.random.default_rng(seed)
        curves = learning_curves(numbers, int(numbers.integers(1, 26)), setting[1])
        order = order_of_reports(numbers, *curves.shape)
        found = lengths(Stopping(Rungs(*setting)), curves, order)
        assert found == rays_lengths(*setting, curves, order)
        stops += sum(n < setting[1] for n in found)
    assert stops or setting == (5, 5, 2)


@pytest.mark.parametrize("setting", SETTINGS)
def test_stopping_is_the_rule_as_it_is_written(setting):
    for seed in range(100, 120):
        numbers = np.random.default_rng(seed)
        curves = learning_curves(numbers, 20, setting[1])
        curves += 1e-6 * numbers.random(curves.shape)  # ties are Ray Tune's to decide: its quantiles are rounded
        order = order_of_reports(numbers, *curves.shape)
        assert lengths(Stopping(Rungs(*setting)), curves, order) == brute_force_lengths(*setting, curves, order)


def test_stopping_by_hand():
    rule = Stopping(Rungs(1, 8))
    scores = [0.5, 0.4, 0.45, 0.5, 0.475, 0.47]
    # Medians of what came before: none, 0.5, 0.45, 0.45, 0.475, 0.475.
    assert [rule.judge(0, str(k), s) for k, s in enumerate(scores)] == [True, False, True, True, True, False]
    assert rule.judge(1, "0", 0.1)
    assert rule.promote() is None


def test_a_diverged_run_stops_and_does_not_lower_the_bar():
    rule = Stopping(Rungs(1, 4))
    assert not rule.judge(0, "first", math.nan)
    assert rule.judge(0, "b", 0.2)
    assert not rule.judge(0, "c", math.nan)
    assert not rule.judge(0, "d", -math.inf)
    assert not rule.judge(0, "e", 0.19)


def li_2018(rungs: Rungs, scores: dict[tuple[int, str], float], workers_order: list[str]) -> list[tuple[int, str]]:
    """Algorithm 2 for one worker that never has a new run to start but those in `workers_order`: its jobs, in order."""
    rung_of: list[list[str]] = [[] for _ in rungs.epochs]
    promoted: list[set[str]] = [set() for _ in rungs.epochs]
    fresh, jobs = list(workers_order), []

    def get_job() -> tuple[int, str] | None:
        for k in reversed(range(len(rung_of))):
            ranked = sorted(rung_of[k], key=lambda run: (-scores[k, run], rung_of[k].index(run)))
            candidates = ranked[: int(len(rung_of[k]) / rungs.eta)]
            promotable = [run for run in candidates if run not in promoted[k]]
            if promotable:
                promoted[k].add(promotable[0])
                return k + 1, promotable[0]
        return (0, fresh.pop(0)) if fresh else None

    while (job := get_job()) is not None:
        jobs.append(job)
        if job[0] < len(rung_of):
            rung_of[job[0]].append(job[1])
    return jobs


@pytest.mark.parametrize("setting", SETTINGS)
def test_promoting_gives_a_worker_the_jobs_of_the_algorithm(setting):
    rungs = Rungs(*setting)
    for seed in range(30):
        numbers = np.random.default_rng(seed)
        fresh = [f"run {k}" for k in range(int(numbers.integers(1, 40)))]
        scores = {(k, r): round(float(numbers.random()), 1) for k in range(len(rungs.epochs)) for r in fresh}
        rule, jobs, waiting = Promoting(rungs), [], list(fresh)
        job: tuple[int, str] | None = (0, waiting.pop(0))
        while job is not None:
            rung, run = job
            jobs.append(job)
            if rung < len(rungs.epochs) and rule.judge(rung, run, scores[rung, run]):
                job = rung + 1, run
            elif (other := rule.promote()) is not None:
                job = other.rung + 1, other.run
            else:
                job = (0, waiting.pop(0)) if waiting else None
        assert jobs == li_2018(rungs, scores, fresh)


def test_promoting_by_hand():
    rule = Promoting(Rungs(1, 8))
    assert not rule.judge(0, "a", 0.5)  # the best of one: floor(1 / 2) go on
    assert not rule.judge(0, "b", 0.4)  # a is promotable now
    assert not rule.judge(0, "b", 0.9)  # what was decided stands
    assert rule.promote() == Decision(0, "a", 0.5, True)
    assert rule.judge(0, "a", 0.0)
    assert rule.promote() is None
    assert not rule.judge(0, "c", math.nan)
    assert rule.judge(0, "d", 0.6)  # two of four, and it is the best
    assert rule.promote() is None


@pytest.mark.parametrize("name", halvings.names)
def test_a_rule_is_what_its_record_makes_of_it(name):
    """Killed after any decision and started from the record, it decides the rest as if nothing had happened."""
    rungs, numbers = Rungs(1, 8), np.random.default_rng(3)
    asked = [(0, str(k), float(numbers.random())) for k in range(12)]
    asked += [(1, str(k), float(numbers.random())) for k in range(6)]

    def decide(rule, some):
        return [(rule.judge(*question), rule.promote()) for question in some]

    whole = halvings[name](rungs)
    expected = decide(whole, asked)
    assert len({goes_on for goes_on, _ in expected}) == 2
    for cut in range(len(asked)):
        first = halvings[name](rungs)
        assert decide(first, asked[:cut]) == expected[:cut]
        second = halvings[name](rungs, record=first.record)
        again = [second.judge(rung, run, math.nan) for rung, run, _ in asked[:cut]]
        assert again == [first.judge(rung, run, 0.0) for rung, run, _ in asked[:cut]]
        assert decide(second, asked[cut:]) == expected[cut:]
        assert second.record == whole.record


def test_rungs_lie_below_the_end():
    found = {s: Rungs(*s).epochs for s in [(1, 16, 2), (1, 17, 2), (3, 100, 2), (1, 27, 3), (5, 5, 2), (5, 9, 2)]}
    assert list(found.values()) == [
        (1, 2, 4, 8), (1, 2, 4, 8, 16), (3, 6, 12, 24, 48, 96), (1, 3, 9), (), (5,)
    ]  # fmt: skip


@pytest.mark.parametrize(("setting", "says"), [((0, 5), "min_epochs"), ((6, 5), "max_epochs"), ((1, 5, 1), "eta")])
def test_rungs_that_make_no_sense_are_refused(setting, says):
    with pytest.raises(BadValue, match=says):
        Rungs(*setting)
    with pytest.raises(BadValue, match=r"no rung 3: runs are judged after \[1, 2, 4\] epochs"):
        Stopping(Rungs(1, 8)).judge(3, "a", 0.5)
    with pytest.raises(BadValue, match="no rung 3"):
        Promoting(Rungs(1, 8), record=[Decision(3, "a", 0.5, False)])


def test_every_knob_of_the_rungs_changes_decisions():
    numbers = np.random.default_rng(0)
    curves = learning_curves(numbers, 30, 32)
    order = list(itertools.chain.from_iterable([run] * 32 for run in range(30)))
    ends = [lengths(Stopping(Rungs(*s)), curves, order) for s in [(1, 32, 2), (2, 32, 2), (1, 8, 2), (1, 32, 3)]]
    assert len({tuple(e) for e in ends}) == 4
