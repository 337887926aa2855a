"""Gradual magnitude pruning during a training, by `Sparse` in anybody's loop and by runs of a study."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sparseflow.masks import Gradual, round_half_up
from sparseflow.study import Surroundings, execute
from sparseflow.train import GradualMagnitude, Sparse, checkpoint


def loop(rule, steps, optimizer_kind=torch.optim.SGD, **settings):
    """Train a small net under the rule; after each step, its masks and magnitudes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    optimizer = optimizer_kind(model.parameters(), lr=0.05, **settings)
    ones = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.dim() > 1}
    sparse = Sparse(model, ones, optimizer, rule)
    history = [{name: mask.clone() for name, mask in sparse.masks.items()}]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        history.append({name: mask.clone() for name, mask in sparse.masks.items()})
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
    return model, optimizer, sparse, history


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 8), length=st.integers(0, 12), every=st.integers(1, 7), percent=st.integers(3, 100),
    everywhere=st.booleans(),
)  # fmt: skip
def test_the_final_density_is_met_exactly_at_the_end_and_never_rises(start, length, every, percent, everywhere):
    density, end = percent / 100, start + length
    final = round_half_up(density, 72) if everywhere else {n: round_half_up(density, k) for n, k in SIZES.items()}
    *_, history = loop(GradualMagnitude(Gradual(start, end, every), final), end + 3)
    counts = [{name: int(mask.sum()) for name, mask in masks.items()} for masks in history]
    total = [sum(c.values()) for c in counts]
    assert total == sorted(total, reverse=True)
    assert total[end:] == [final if everywhere else sum(final.values())] * len(total[end:])
    if not everywhere:
        assert counts[-1] == final
    changed = [step for step in range(1, len(total)) if total[step] != total[step - 1]]
    assert all(step == end or (step - start) % every == 0 for step in changed)
    for before, after in itertools.pairwise(history):
        assert not any((after[name] & ~before[name]).any() for name in after)


SIZES = {"0.weight": 48, "2.weight": 24}


def test_what_goes_is_smallest_and_leaves_no_state():
    rule = GradualMagnitude(Gradual(2, 6, 2), {"0.weight": 10, "2.weight": 24}, dense=frozenset({"2.weight"}))
    model, optimizer, sparse, _ = loop(rule, 6, torch.optim.Adam)
    assert sparse.masks["2.weight"].all()
    mask = sparse.masks["0.weight"]
    assert int(mask.sum()) == 10
    state = optimizer.state[model[0].weight]
    assert not state["exp_avg"][~mask].any()
    assert state["exp_avg"][mask].all()
    assert sparse.changes == 3


def test_rounds_keep_the_largest_of_what_is_left():
    model, _, sparse, _ = loop(GradualMagnitude(Gradual(3, 3), {"0.weight": 7, "2.weight": 5}), 3)
    dense, _, _, _ = loop(None, 3)
    for name, mask in sparse.masks.items():
        magnitudes = dense.get_parameter(name).abs().flatten()
        largest = magnitudes.topk(int(mask.sum())).indices
        assert set(largest.tolist()) == set(mask.flatten().nonzero().squeeze(1).tolist())
        assert torch.equal(model.get_parameter(name)[mask], dense.get_parameter(name)[mask])


def test_pruning_at_step_0_is_one_shot():
    _, _, sparse, history = loop(GradualMagnitude(Gradual(0, 0), 20), 1)
    assert sum(int(mask.sum()) for mask in history[0].values()) == 20
    assert sparse.changes == 1


def test_a_copy_keeps_its_rule_and_goes_on_alone():
    rule = GradualMagnitude(Gradual(1, 6, 1), 20)
    _, _, sparse, _ = loop(rule, 3)
    other = copy.deepcopy(sparse)
    assert (other.rule, other.steps, other.changes) == (rule, 3, 0)
    for _ in range(3):
        for p in other.model.parameters():
            p.grad = torch.zeros_like(p)
        other.optimizer.step()
    assert sum(int(mask.sum()) for mask in other.masks.values()) == 20
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) > 20


# Runs of a study -----------------------------------------------------------------------------------------------------


@pytest.fixture
def gradual(small):
    def make(density=0.3, budget=None, **fields):
        schedule = {"start": 2, "end": 8, "every": 3} | fields.pop("gradual", {})
        mask = {"twin_width": None, "density": density, "gradual": schedule, "budget": budget, **fields}
        return small(mask=mask, train={"epochs": 3})

    return make


@pytest.mark.parametrize("budget", ["uniform", "erk", "global"])
def test_a_run_ends_with_the_density_asked_for(budget, gradual, cache, tmp_path):
    spec = gradual(budget=budget)
    rows: list = []
    where = Surroundings(checkpoints=tmp_path, keep=True)
    result = execute(spec, where, cache, rows.extend)
    kept = checkpoint.load(where.final_path(spec.name))
    masks = kept["masks"]
    assert {name: int(mask.sum()) for name, mask in masks.items()} == result.active
    total = sum(mask.numel() for mask in masks.values())
    uniform = sum(round_half_up(0.3, mask.numel()) for mask in masks.values())
    assert sum(result.active.values()) == (uniform if budget == "uniform" else round_half_up(0.3, total))
    for name, mask in masks.items():
        assert not kept["state_dict"][name][~mask].any()
    density = [(step, value) for step, _, metric, layer, value in rows if (metric, layer) == ("density", "")]
    assert [step for step, _ in density] == [2, 5, 8]
    assert density[0][1] == 1.0
    assert density[-1][1] == pytest.approx(sum(result.active.values()) / total)


def test_flops_count_what_was_active_when(gradual, small, cache):
    late = execute(gradual(gradual={"start": 15, "end": 15}), Surroundings(), cache)
    early = execute(gradual(gradual={"start": 0, "end": 0}), Surroundings(), cache)
    dense = execute(small(mask={"twin_width": None}, train={"epochs": 3}), Surroundings(), cache)
    assert late.training_flops == dense.training_flops
    assert late.inference_flops == early.inference_flops < dense.inference_flops
    assert early.training_flops * dense.inference_flops == dense.training_flops * early.inference_flops
    middle = execute(gradual(), Surroundings(), cache)
    assert early.training_flops < middle.training_flops < late.training_flops


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_stopped_between_two_prunings_equals_unbroken(optimizer, gradual, cache, tmp_path):
    spec = gradual()
    spec = spec.model_copy(update={"optimizer": spec.optimizer.model_copy(update={"name": optimizer})})
    whole = execute(spec, Surroundings(checkpoints=tmp_path / "a"), cache)
    where = Surroundings(checkpoints=tmp_path / "b")
    assert execute(spec, where, cache, should_stop=lambda: True).status == "stopped"
    result = execute(spec, where, cache)
    assert result.resumed_at == 1
    assert (result.digest, result.active, result.training_flops, result.final) == (
        whole.digest, whole.active, whole.training_flops, whole.final,
    )  # fmt: skip
