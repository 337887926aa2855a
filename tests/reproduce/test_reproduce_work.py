"""The arithmetic of items, counted; the time of a machine."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sparseflow.measure.probes import PRODUCTS
from sparseflow.reproduce.analyses import analyses, effort_of
from sparseflow.reproduce.assess import needs_runs
from sparseflow.reproduce.experiment import experiment, experiments
from sparseflow.reproduce.machine import Machine
from sparseflow.reproduce.scale import LADDER, NAMED, scale_named
from sparseflow.reproduce.work import Work, together, work_of, work_of_looking
from sparseflow.reproduce.works import counted, works
from sparseflow.study import RunSpec, validate

SHAPE = (1_000, 200, (1, 28, 28), 10)


def one(**sections: object) -> Work:
    content = {"data": {"name": "mnist"}, "model": {"depth": 1, "width": 100}, "train": {"epochs": 2, "eval_every": 0}}
    content |= {"measure": {"points": 0}, **sections}
    return work_of([validate(RunSpec, content)], lambda name: SHAPE)


def test_the_work_of_a_perceptron_by_hand() -> None:
    forward = 2 * (784 * 100 + 100 * 10)
    work = one()
    assert work.runs == 1
    assert work.gflops == pytest.approx((3 * forward * 1_000 * 2 + forward * 200) / 1e9)
    assert work.layer_steps == 2 * 8 * 2
    assert one(train={"epochs": 2, "eval_every": 1}).gflops > work.gflops
    assert one(measure={"points": 2, "probe_size": 100}).gflops == pytest.approx(
        work.gflops + (2 * forward * 200 + 3 * 2 * forward * 100) / 1e9
    )
    assert one(measure={"points": 2, "probe_size": 100, "eigenvalues": 1}).gflops == pytest.approx(
        work.gflops + (2 * forward * 200 + (3 + PRODUCTS * 6) * 2 * forward * 100) / 1e9
    )
    assert one(data={"name": "mnist", "train_limit": 500}).layer_steps == 2 * 4 * 2


def test_sparse_networks_cost_less_where_layers_are_compact() -> None:
    dense, sparse, masked = (
        one(mask=mask).gflops for mask in ({}, {"density": 0.05}, {"density": 0.05, "execution": "masked"})
    )
    assert sparse < 0.2 * dense
    assert masked == dense
    twin = one(mask={"twin_width": 10}, model={"depth": 3, "width": 100}).gflops
    assert twin < 0.1 * one(model={"depth": 3, "width": 100}).gflops
    assert one(mask={"twin_width": 79}, model={"depth": 3}).gflops < 0.1 * one(model={"depth": 3}).gflops  # of 788


def test_studies_of_a_kind_share_runs_and_every_trial_of_a_search_counts() -> None:
    one, two = (validate(RunSpec, {"seed": seed}) for seed in (1, 2))
    assert together([("arms", [one, two]), ("arms", [two])]) == [one, two]
    assert together([("arms", [one]), ("pairs", [one])]) == [one, one]  # two stores
    assert together([("search", [one, one, two]), ("search", [two])]) == [one, one, two, two]


def test_a_search_is_counted_with_all_its_trials() -> None:
    few, many = (counted(experiment("001.tableB.1a"), scale_named(scale)).runs for scale in ("10", "small"))
    assert many - few >= 25 - 4  # vectors of one search


def test_looking_at_networks_is_counted_by_hand() -> None:
    at = {"at": [0.1, 0.9], "arm": "a", "arms": ["a", "b", "c"], "examples": 300}
    full, small = scale_named("full"), scale_named("10")  # 10 probes of 80 steps; 2 of 20 on 128 examples
    each, less = (PRODUCTS + 800) * 2 * 2 * 300, (PRODUCTS + 40) * 2 * 2 * 128
    assert effort_of("updates", at, full, 7) == 2 * 2 * each
    assert effort_of("spectra", at, full, 7) == 3 * 2 * each
    assert effort_of("spectra", at, small, 7) == 3 * 2 * less
    line = {"view": "eigenvector", "reach": 1.0, "points": 21, "examples": 900, "hessian_examples": 400}
    assert effort_of("landscape", line, full, 7) == pytest.approx(7 * (PRODUCTS * 2 * 400 + 21 * 900 / 3))
    square = line | {"view": "input"}
    assert effort_of("landscape", square, full, 7) == pytest.approx(7 * (900 + 21**2 * 900 / 3))
    forward = 2 * (784 * 100 + 100 * 10)
    run = validate(RunSpec, {"data": {"name": "mnist"}, "model": {"depth": 1, "width": 100}})
    assert work_of_looking(50.0, [run], lambda name: SHAPE) == Work(0, pytest.approx(50 * 3 * forward / 1e9), 0.0)


@pytest.mark.parametrize("entry", analyses, ids=lambda one: one.name)
def test_every_analysis_says_what_it_takes_and_less_at_smaller_scales(entry) -> None:
    items = [one for one in experiments().values() if one.analyses == entry.name]
    assert items
    for one in items:
        efforts = [effort_of(entry.name, one.options, scale, 3) for scale in LADDER]
        assert all(a >= b > 0 for a, b in pairwise(efforts))
        assert efforts[0] > 10 * efforts[-1]


def test_every_item_that_trains_is_counted_and_each_scale_asks_for_less() -> None:
    assert set(works()) == {name for name, one in experiments().items() if needs_runs(one)}
    for name, scales in works().items():
        assert set(scales) == set(NAMED), name
        full, medium, small = (scales[scale].gflops for scale in NAMED)
        assert full > medium > small > 0, name


@pytest.mark.parametrize("item", ["000.table5a", "003.table5", "004.fig7b"])
def test_the_table_is_what_the_experiments_give(item: str) -> None:
    for scale in NAMED:
        now, kept = counted(experiment(item), scale_named(scale)), works()[item][scale]
        assert now.runs == kept.runs, "run `make works`"
        assert now.gflops == pytest.approx(kept.gflops, rel=1e-3)
        assert now.layer_steps == pytest.approx(kept.layer_steps, rel=1e-3)


def test_a_machine_turns_work_into_seconds() -> None:
    machine = Machine(gflops_per_s=50.0, step_s=1e-4)
    assert machine.seconds(Work(10, 100.0, 1_000.0)) == pytest.approx(2.0 + 0.1 + 1.0)
    timed = Machine.timed()
    assert timed.gflops_per_s > 0
    assert timed.step_s > 0


def test_smaller_scales_are_less_work_all_the_way_down() -> None:
    work = [counted(experiment("001.tableA.2c"), scale).gflops for scale in LADDER]
    assert work == sorted(work, reverse=True)


def test_narrow_convolutions_cost_as_wide_ones() -> None:
    """LeNet-5 by hand: 1 -> 6 -> 16 channels of 5 x 5 at 24 x 24 and 8 x 8 places, then 256-120-84-10."""
    lenet = {"name": "lenet-5", "depth": None}
    first, second = 2 * 25 * 6 * 24 * 24, 2 * 25 * 6 * 16 * 8 * 8
    forward = 16 * first + 16 / 6 * second + 2 * (256 * 120 + 120 * 84 + 84 * 10)
    assert one(model=lenet).gflops == pytest.approx((3 * 2 * 1_000 + 200) * forward / 1e9)
