"""Masks that another run ended with, whatever found them there."""

from __future__ import annotations

import pytest
import torch

from sparseflow.core import BadSpec, SparseflowError, stream_seed
from sparseflow.init import Scheme, draw_active_
from sparseflow.models import materialise
from sparseflow.study import (
    ArmsSpec,
    FactsBook,
    Planned,
    Pool,
    RunSpec,
    Store,
    Surroundings,
    arms_of,
    drive,
    execute,
    execute_group,
    first_runs,
    legacy,
    validate,
    winners,
    with_predecessors,
)
from sparseflow.study.build import active_at_the_end, build
from sparseflow.study.run import source_for
from sparseflow.train import checkpoint
from watchers import Quiet

GRADUAL = {"twin_width": None, "density": 0.2, "gradual": {"start": 2, "end": 7, "every": 2}}


@pytest.fixture
def pruned(small):
    return small(mask=GRADUAL)


@pytest.fixture
def heir(small, pruned):
    def make(*, mask=None, run=None, sections=None, **inherited):
        run = {k: v for k, v in (run or pruned).changes().items() if k != "seed"}
        return small(
            mask={"twin_width": None, "inherited": {"run": run, **inherited}, **(mask or {})}, **sections or {}
        )

    return make


def run_all(runs, folder, cache):
    """(results by name, surroundings) of the runs and those before them, in one process."""
    chain = with_predecessors(runs)
    where = Surroundings(checkpoints=folder, legacy=legacy(chain))
    return {spec.name: result for spec, result in execute_group(chain, where, cache)}, where


def start_of(spec, where, cache):
    data = cache.prepared(spec)
    return build(spec, data.input_shape, data.classes, source=source_for(spec, data, where))


def final(where, spec):
    return checkpoint.load(where.final_path(spec.name))


def test_an_heir_trains_the_mask_that_the_run_ended_with(pruned, heir, cache, tmp_path):
    spec = heir()
    results, where = run_all([spec], tmp_path, cache)
    assert {r.status for r in results.values()} == {"finished"}
    masks = final(where, pruned)["masks"]
    network = start_of(spec, where, cache)
    assert list(network.masks) == list(masks)
    assert all(torch.equal(network.masks[name], mask) for name, mask in masks.items())
    assert results[spec.name].active == results[pruned.name].active
    data = cache.prepared(spec)
    assert active_at_the_end(spec, data.input_shape, data.classes) == sum(results[spec.name].active.values())


def test_fresh_weights_are_drawn_apart_from_those_of_the_run_before(heir, cache, tmp_path):
    spec = heir(sections={"init": {"method": "dense"}})
    _, where = run_all([spec], tmp_path, cache)
    network = start_of(spec, where, cache)
    data = cache.prepared(spec)
    drawn = materialise(type(network.model)(data.input_shape, data.classes, depth=3, width=24).to("meta"))
    draw_active_(drawn, {}, Scheme(), seed=stream_seed(spec.seed, "fresh"))
    mine = network.model.state_dict()
    assert all(torch.equal(p * network.masks[n], mine[n] * network.masks[n]) for n, p in drawn.named_parameters())


@pytest.mark.parametrize("step", [0, 3, 6])
def test_rewound_weights_are_those_of_the_runs_early_step(step, pruned, heir, cache, tmp_path):
    spec = heir(weights="rewound", rewind_step=step)
    results, where = run_all([spec], tmp_path, cache)
    early = checkpoint.load(where.rewind_path(pruned.name, step))["state_dict"]
    network = start_of(spec, where, cache)
    for name, value in network.model.state_dict().items():
        mask = network.masks.get(name, torch.ones_like(value))
        assert torch.equal(value * mask, early[name] * mask)
    one_step = results[pruned.name].step - step
    assert results[spec.name].training_flops == pytest.approx(
        3 * results[spec.name].inference_flops * 32 * one_step
    )  # the tail alone is trained


def test_final_weights_are_those_that_the_run_ended_with(pruned, heir, cache, tmp_path):
    spec = heir(weights="final", sections={"seed": 4}, seed=0)
    results, where = run_all([spec], tmp_path, cache)
    last = final(where, pruned)["state_dict"]
    network = start_of(spec, where, cache)
    assert all(torch.equal(network.model.state_dict()[name], value) for name, value in last.items())
    assert results[spec.name].step == results[pruned.name].step  # a training of its own, from its first step on
    with pytest.raises(BadSpec, match="needs weights = rewound"):
        heir(weights="final", rewind_step=2)


def test_runs_of_many_seeds_may_share_one_start(heir, cache, tmp_path):
    shared = [heir(seed=0, sections={"seed": k, "init": {"seed": 9}}) for k in (1, 2)]
    own = heir(seed=0, sections={"seed": 2})
    results, where = run_all([*shared, own], tmp_path, cache)
    one, two, other = (start_of(spec, where, cache).model.state_dict() for spec in (*shared, own))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert len({results[spec.name].digest for spec in (*shared, own)}) == 3  # other data orders


def test_runs_trained_stacked_leave_their_early_weights_too(small, heir, cache, tmp_path):
    before = small()
    runs = [heir(run=before, weights="rewound", rewind_step=step) for step in (0, 3, 5)]
    where = Surroundings(checkpoints=tmp_path, legacy=legacy(runs))
    assert execute(before, where, cache).stacked
    early = {step: checkpoint.load(where.rewind_path(before.name, step))["state_dict"] for step in (0, 3, 5)}
    unstacked = small(train={"stack": "never"})
    runs = [heir(run=unstacked, weights="rewound", rewind_step=step) for step in early]
    alone = Surroundings(checkpoints=tmp_path, legacy=legacy(runs))
    assert not execute(unstacked, alone, cache).stacked
    for step, state in early.items():
        other = checkpoint.load(alone.rewind_path(unstacked.name, step))["state_dict"]
        assert all(torch.allclose(state[name], other[name], rtol=1e-4, atol=1e-6) for name in state)
    assert not torch.equal(early[3]["output.weight"], early[5]["output.weight"])


def test_every_seed_has_its_own_run_unless_one_is_named(heir):
    own, fixed = heir().model_copy(update={"seed": 5}), heir(seed=0).model_copy(update={"seed": 5})
    assert [spec.seed for spec in with_predecessors([own])] == [5, 5]
    assert [spec.seed for spec in with_predecessors([fixed])] == [0, 5]
    assert own.name != fixed.name != heir().name


def test_one_run_written_in_two_ways_is_one_run(pruned, heir):
    written_out = pruned.model_dump(mode="json", exclude={"seed"})
    other = validate(RunSpec, heir().changes() | {"mask": {"inherited": {"run": written_out}}})
    assert other.name == heir().name
    assert other == heir()


def test_runs_are_inherited_over_generations(pruned, heir, cache, tmp_path):
    child = heir(mask={"shuffle": True})
    grandchild = heir(run=child)
    results, where = run_all([grandchild], tmp_path, cache)
    assert list(results) == [pruned.name, child.name, grandchild.name]
    first, second, third = (final(where, spec)["masks"] for spec in (pruned, child, child))
    assert all(first[name].sum() == second[name].sum() for name in first)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    network = start_of(grandchild, where, cache)
    assert all(torch.equal(network.masks[name], third[name]) for name in third)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"inherited": {"run": {}}}, "that run is dense"),
        ({"inherited": {"run": {"seed": 3, "mask": {"density": 0.1}}}}, "mask.inherited.seed names that run's seed"),
        ({"inherited": {"run": {"mask": {"densty": 0.1}}}}, "mask.inherited.run.mask.densty: no such field"),
        ({"inherited": {"run": {"mask": {"density": 0.1}}, "rewind_step": 4}}, "needs weights = rewound"),
        ({"inherited": {"run": {"mask": {"density": 0.1}}}, "density": 0.2}, "give density or inherited"),
        ({"inherited": {"run": {"mask": {"density": 0.1}}}, "criterion": "snip"}, "needs density"),
        ({"inherited": {"run": 3}}, "mask.inherited.run"),
    ],
)
def test_what_cannot_be_inherited_is_said(mask, words):
    with pytest.raises(BadSpec, match=words):
        validate(RunSpec, {"mask": mask})


def test_masks_of_another_model_are_refused(heir, cache, tmp_path):
    spec = heir(sections={"model": {"width": 20}})
    results, _ = run_all([spec], tmp_path, cache)
    assert results[spec.name].status == "failed"
    assert "masks of another model" in results[spec.name].error


def test_a_missing_run_is_said_in_words(heir, cache, tmp_path):
    with pytest.raises(SparseflowError, match="begins with the network of the run"):
        execute(heir(), Surroundings(checkpoints=tmp_path), cache)


def test_a_step_that_a_training_does_not_come_by_is_refused(heir, cache, tmp_path):
    results, _ = run_all([heir(weights="rewound", rewind_step=10)], tmp_path, cache)
    assert "rewind_step 10 is past the training's 10 steps" in next(iter(results.values())).error
    child = heir(weights="rewound", rewind_step=6)
    grandchild = heir(run=child, weights="rewound", rewind_step=4)
    results, _ = run_all([grandchild], tmp_path, cache)
    assert "rewind_step 4 is before step 6" in results[child.name].error


@pytest.fixture
def study(small_npz):
    def make(arms, **fields):
        base = {
            "data": {"name": str(small_npz), "val_fraction": 0.2},
            "model": {"depth": 1, "width": 12},
            "train": {"epochs": 2, "batch_size": 32},
            "measure": {"points": 2},
        }
        return validate(ArmsSpec, {"base": base, "arms": arms, "seeds": 2, "grid_seeds": 2, **fields})

    return make


PRUNED = {"mask": {"density": 0.2, "gradual": {"start": 1, "end": 6, "every": 2}}}


def carry_out(spec, folder, cache, jobs=1):
    arms = arms_of(spec)
    facts = FactsBook.of((p.spec for arm in arms for p in arm.points), cache)
    where = Surroundings(checkpoints=folder / "checkpoints")
    watcher = Quiet()
    sequel = winners(spec, arms, facts)
    programme, study = Planned(first_runs(spec, arms), sequel), (spec.study_name, "arms", {})
    tally = drive(programme, folder, where, Pool(jobs), watcher, study=study, facts=facts)
    store = Store(folder)
    try:
        return arms, tally, store.results()
    finally:
        store.close()


def test_an_arm_inherits_from_another_by_its_name_wherever_it_stands(study, cache, tmp_path):
    spec = study({"scratch": {"mask": {"inherited": {"run": "pruned"}}}, "pruned": PRUNED})
    (scratch, pruned), tally, results = carry_out(spec, tmp_path, cache, jobs=2)
    assert not tally.failed
    assert tally.total == 4
    for seed in (0, 1):
        heir, before = scratch.points[0].at(seed), pruned.points[0].at(seed)
        assert with_predecessors([heir]) == [before, heir]
        assert results[heir.name]["active"] == results[before.name]["active"]
        assert results[heir.name]["digest"] != results[before.name]["digest"]


def test_arms_of_a_cross_are_named_with_their_levels(study):
    arms = arms_of(
        study(
            {
                "pruned": {**PRUNED, "cross": {"mask.density": [0.2, 0.1]}},
                "scratch": {"cross": {"mask.inherited.run": ["pruned 0.2", "pruned 0.1"]}},
            }
        )
    )
    inherited = [with_predecessors([arm.points[0].spec])[0] for arm in arms[2:]]
    assert inherited == [arm.points[0].spec for arm in arms[:2]]


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"a": {"mask": {"inherited": {"run": "b"}}}}, "known: a"),
        ({"a": {"mask": {"inherited": {"run": "b"}}}, "b": {"mask": {"inherited": {"run": "a"}}}}, "in a circle"),
        ({"a": {"mask": {"inherited": {"run": "b"}}}, "b": {**PRUNED, "grid": {"optimizer.lr": [0.1, 1.0]}}}, "grid"),
        ({"a": {"mask": {"inherited": {"run": "b"}}}, "b": {}}, "that run is dense"),
    ],
)
def test_arms_that_cannot_be_inherited_from(study, arms, words):
    with pytest.raises(BadSpec, match=words):
        arms_of(study(arms))


@pytest.mark.slow
def test_what_later_arms_begin_with_is_made_again_if_it_was_not_kept(study, cache, tmp_path):
    _, _, before = carry_out(study({"pruned": PRUNED}), tmp_path, cache)
    heirs = {"pruned": PRUNED, "ticket": {"mask": {"inherited": {"run": "pruned", "weights": "rewound"}}}}
    _, tally, after = carry_out(study(heirs), tmp_path, cache)
    assert not tally.failed
    assert tally.executed == 4
    assert all(after[name]["digest"] == result["digest"] for name, result in before.items())


@pytest.mark.slow
def test_a_grid_of_heirs_leaves_what_its_winner_begins_with(study, cache, tmp_path):
    arms = {
        "pruned": PRUNED,
        "tuned": {"mask": {"inherited": {"run": "pruned"}}, "grid": {"optimizer.lr": [0.01, 0.1]}},
    }
    _, tally, _ = carry_out(study(arms), tmp_path, cache)
    assert not tally.failed
    assert tally.total == tally.executed == 2 + 2 + 4 + 2
