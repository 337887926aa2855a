"""Iterative pruning with rewinding as runs: each round begins with what the one before it leaves."""

from __future__ import annotations

import itertools

import pytest
import torch

from sparseflow.core import SparseflowError, stream_seed
from sparseflow.init import Scheme, draw_active_
from sparseflow.masks import next_round, rounds_to
from sparseflow.models import materialise
from sparseflow.study import DataFacts, Surroundings, execute, execute_group, grouped, with_predecessors
from sparseflow.study.build import build
from sparseflow.study.run import source_for
from sparseflow.train import checkpoint

STEPS = 5  # of an epoch: 160 examples in batches of 32


@pytest.fixture
def ticket(small):
    def make(round_=3, density=None, **lottery):
        fields = {"round": round_, **lottery}
        sections = {k: fields.pop(k) for k in ("train", "data", "optimizer", "seed") if k in fields}
        options = {k: fields.pop(k) for k in ("shuffle", "exclude", "dense", "execution", "budget") if k in fields}
        return small(mask={"twin_width": None, "lottery": fields, "density": density, **options}, **sections)

    return make


def run_all(specs, where, cache):
    return {spec.name: result for spec, result in execute_group(specs, where, cache)}


def kept(where, spec):
    return checkpoint.load(where.final_path(spec.name))


def active(content):
    return sum(int(mask.sum()) for mask in content["masks"].values())


@pytest.mark.parametrize("layerwise", [False, True])
def test_every_round_prunes_the_network_that_the_last_one_trained(layerwise, ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    chain = with_predecessors([ticket(3, layerwise=layerwise)])
    assert [spec.mask.lottery.round for spec in chain] == [0, 1, 2, 3]
    results = run_all(chain, where, cache)
    assert {r.status for r in results.values()} == {"finished"}
    before = None
    for spec in chain:
        content = kept(where, spec)
        total = sum(results[spec.name].active.values())
        if before is not None:
            masks = before["masks"] or {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights(before).items()}
            target = dict.fromkeys(masks, 1) if layerwise else len(masks)
            expected = next_round(weights(before), masks, 0.2, target=target, layerwise=layerwise)
            assert all(torch.equal(content["masks"][name], expected[name]) for name in expected)
            assert total == active(content)
            for name, mask in content["masks"].items():
                assert not content["state_dict"][name][~mask].any()
        before = content


def weights(content):
    return {n: w for n, w in content["state_dict"].items() if w.dim() >= 2}


@pytest.mark.parametrize("density", [0.5, 0.3, 0.64])
def test_the_last_round_meets_the_density(density, ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    last = ticket(rounds_to(density), density)
    results = run_all(with_predecessors([last]), where, cache)
    sizes = sum(mask.numel() for mask in kept(where, last)["masks"].values())
    assert sum(results[last.name].active.values()) == int(density * sizes + 0.5)


def test_rounds_on_the_way_are_the_same_run_whatever_the_target(ticket):
    assert ticket(2, 0.05).name == ticket(2, 0.1).name == ticket(2).name
    assert ticket(rounds_to(0.05), 0.05).name != ticket(rounds_to(0.05)).name
    with pytest.raises(SparseflowError, match="reached in round 14"):
        ticket(15, 0.05)


@pytest.mark.parametrize("rewind_step", [0, 3, STEPS, STEPS + 2])
def test_a_round_starts_from_the_weights_of_the_rewind_step(rewind_step, ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    spec = ticket(1, rewind_step=rewind_step, seed=3)
    first, _ = chain = with_predecessors([spec])
    run_all(chain[:1], where, cache)
    rewound = checkpoint.load(where.rewind_path(first.name, rewind_step))["state_dict"]
    data = cache.prepared(spec)
    network = build(spec, data.input_shape, data.classes, source=source_for(spec, data, where))
    for name, value in rewound.items():
        mask = network.masks.get(name)
        mine = network.model.state_dict()[name]
        assert torch.equal(mine if mask is None else mine * mask, value if mask is None else value * mask)
    drawn = materialise(type(network.model)(data.input_shape, data.classes, depth=3, width=24).to("meta"))
    draw_active_(drawn, {}, Scheme(), seed=3)
    same = all(torch.equal(p, rewound[name]) for name, p in drawn.named_parameters())
    assert same == (rewind_step == 0)


@pytest.mark.parametrize("rewind_step", [2, STEPS, STEPS + 3])
def test_schedule_data_order_and_augmentation_go_on_where_they_were(rewind_step, ticket, cache, tmp_path):
    """With nothing removed and an optimiser without state, the rewound run is the tail of the unbroken one."""
    where = Surroundings(checkpoints=tmp_path)
    hard = {
        "optimizer": {"name": "sgd", "schedule": {"name": "cosine"}},
        "data": {"augment": True},
        "train": {"epochs": 3},
    }
    spec = ticket(1, rewind_step=rewind_step, dense=("*",), **hard)
    chain = with_predecessors([spec])
    results = run_all(chain, where, cache)
    first, second = (results[s.name] for s in chain)
    assert first.digest == second.digest != ""
    assert second.training_flops < first.training_flops


def test_fresh_weights_and_shuffled_masks(ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    variants = {"ticket": ticket(2), "fresh": ticket(2, weights="fresh"), "random": ticket(2, shuffle=True)}
    chain = with_predecessors(variants.values())
    assert len(chain) == 2 + 3
    run_all(chain, where, cache)
    found = {what: kept(where, spec) for what, spec in variants.items()}
    for name, mask in found["ticket"]["masks"].items():
        assert torch.equal(found["fresh"]["masks"][name], mask)
        assert found["random"]["masks"][name].sum() == mask.sum()
    assert any(not torch.equal(found["random"]["masks"][n], m) for n, m in found["ticket"]["masks"].items())
    data = cache.prepared(variants["fresh"])
    spec = variants["fresh"]
    network = build(spec, data.input_shape, data.classes, source=source_for(spec, data, where))
    drawn = materialise(type(network.model)(data.input_shape, data.classes, depth=3, width=24).to("meta"))
    draw_active_(drawn, {}, Scheme(), seed=stream_seed(spec.seed, "fresh"))
    assert all(torch.equal(p * network.masks[n], network.model.state_dict()[n] * network.masks[n])
               for n, p in drawn.named_parameters())  # fmt: skip


def test_stopped_and_resumed_ends_with_the_same_masks(ticket, cache, tmp_path):
    chain = with_predecessors([ticket(3, 0.55, rewind_step=7, train={"epochs": 3})])
    whole = Surroundings(checkpoints=tmp_path / "whole")
    expected = run_all(chain, whole, cache)
    broken = Surroundings(checkpoints=tmp_path / "broken")
    results: dict = {}
    ends = []
    for stop_after in itertools.count(1):
        asked = itertools.count(1)
        rest = [spec for spec in chain if spec.name not in results]
        for spec, result in execute_group(rest, broken, cache, should_stop=lambda c=asked, n=stop_after: next(c) >= n):
            ends.append(result.status)
            if result.status == "finished":
                results[spec.name] = result
        if len(results) == len(chain):
            break
    assert set(ends) == {"stopped", "finished"}
    assert max(result.resumed_at for result in results.values()) > 0
    for spec in chain:
        assert results[spec.name].digest == expected[spec.name].digest
        for name, mask in kept(whole, spec)["masks"].items():
            assert torch.equal(kept(broken, spec)["masks"][name], mask)


def test_a_missing_predecessor_is_said_in_words(ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    with pytest.raises(SparseflowError, match=r"begins with the network of round 1 of the lottery"):
        execute(ticket(2), where, cache)


def test_a_round_too_far_to_rewind_is_an_error(ticket, cache, tmp_path):
    with pytest.raises(SparseflowError, match="rewind_step 1000 is past the training's 10 steps"):
        execute(ticket(0, rewind_step=1000), Surroundings(checkpoints=tmp_path), cache)


def test_rounds_are_one_group_in_order(ticket, small):
    facts = DataFacts("small", (3, 6, 6), 4, 160, 80, "")
    chain = with_predecessors([ticket(3), ticket(3, seed=1)])
    groups = grouped([*reversed(chain), small()], 2, lambda run: facts)
    assert [[s.mask.lottery.round for s in g] for g in groups if g[0].mask.lottery] == [[0, 1, 2, 3]] * 2
    assert sum(len(g) for g in groups) == 9


def test_a_lottery_leaves_dense_and_excluded_layers_alone(ticket, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    spec = ticket(2, dense=("output*",), exclude=("linears.0*",))
    run_all(with_predecessors([spec]), where, cache)
    masks = kept(where, spec)["masks"]
    assert masks["output.weight"].all()
    assert "linears.0.weight" not in masks
    assert not masks["linears.1.weight"].all()


def test_what_later_rounds_begin_with_is_kept_unasked(ticket, small, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    first, second = chain = with_predecessors([ticket(1)])
    run_all(chain, where, cache)
    assert where.kept_paths(first) == [where.final_path(first.name), where.rewind_path(first.name, 0)]
    assert where.kept_paths(second) == [where.final_path(second.name)]
    assert sorted(tmp_path.iterdir()) == sorted(
        {*where.kept_paths(first), *where.kept_paths(second)} | resumes(where, chain)
    )
    assert where.kept_paths(small()) == []


def resumes(where, chain):
    return {path for spec in chain if (path := where.resume_path(spec.name)).exists()}
