"""The presets of 004's tickets: what they make, and that every arm of them runs and is compared at any scale."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from sparseflow.cli.kinds import ask
from sparseflow.report import write_report
from sparseflow.study import (
    ArmsSpec,
    DataCache,
    Pool,
    Store,
    Surroundings,
    arms_of,
    compared,
    drive,
    first_runs,
    predecessor,
    read_preset,
    validate,
    with_predecessors,
)
from ticket_study import silent
from watchers import Quiet

PRESETS = {"tickets-lenet": (0.05, 0), "tickets-mlp": (0.02, 0), "tickets-resnet20": (0.2, 50)}
ARMS = ["ticket", "scratch", "scratch own inits", "restart", "pruned"]


@pytest.mark.parametrize("name", PRESETS)
def test_one_pruned_solution_is_behind_all_but_the_other_pruned_ones(name):
    density, rewind = PRESETS[name]
    spec = validate(ArmsSpec, {k: v for k, v in read_preset(name).items() if k != "kind"})
    arms = {arm.name: arm.points[0] for arm in arms_of(spec)}
    assert list(arms) == ARMS == list(spec.likeness.arms)
    reference = arms["pruned"].at(0)
    assert reference.mask.density == density
    every = with_predecessors(first_runs(spec, arms_of(spec)))
    assert len(every) == 26
    assert {run.name for run in compared(spec, arms_of(spec))} == {run.name for run in every}
    for arm in ARMS[:-1]:
        runs = [arms[arm].at(seed) for seed in spec.run_seeds]
        assert len(runs) == 5
        assert {predecessor(run).name for run in runs} == {reference.name}
        assert {run.seed for run in runs}.isdisjoint({0})  # no heir has the data order of the reference
    assert arms["ticket"].spec.mask.inherited.rewind_step == rewind
    assert {arm: point.spec.mask.inherited.weights for arm, point in arms.items() if arm != "pruned"} == {
        "ticket": "rewound", "scratch": "fresh", "scratch own inits": "fresh", "restart": "final"}  # fmt: skip
    assert arms["scratch"].spec.init.seed is not None
    assert arms["scratch own inits"].spec.init.seed is None


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_it_runs_on_other_data_at_a_small_scale(name, tmp_path):
    draw = np.random.default_rng(0)
    x, x_test = (draw.integers(0, 256, (n, 3, 8, 8)).astype(np.uint8) for n in (80, 20))
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(80) % 4, x_test=x_test, y_test=np.arange(20) % 4)
    sets = [
        f"base.data={{name: {tmp_path / 'data.npz'}}}", "base.train={epochs: 2, batch_size: 20}",
        "base.measure={points: 2, probe_size: 20}", "arms.pruned.mask.gradual={start: 2, end: 4, every: 1}",
        "seeds=[1, 2]", "likeness.points=3",
    ]  # fmt: skip
    if name == "tickets-resnet20":
        sets += ["base.model.width=2", "arms.ticket.mask.inherited.rewind_step=1"]
    out = tmp_path / "out"
    where = Surroundings(checkpoints=out / "checkpoints")
    asked = ask(name, sets, None, DataCache(where))
    tally = drive(asked.programme, out, where, Pool(2), Quiet(), study=asked.study, facts=asked.facts)
    assert (tally.total, len(tally.failed)) == (11, 0)
    store = Store(out)
    assert asked.compare(store, out, silent)
    page = write_report(store, out).read_text()
    store.close()
    assert "Claims about tickets" in page
    with (out / "likeness-networks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["group"] for row in rows} == set(ARMS)
    assert {row["start_distance"] for row in rows if row["group"] == "restart"} == {"0.0"}
    assert len({row["start_distance"] for row in rows if row["group"] in ("ticket", "scratch")}) == 2
