"""Every criterion x every budget x networks of every kind: exact numbers, the best stay."""

from __future__ import annotations

import copy
from math import inf

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pruning import run
from small_nets import NETS, case, drawn
from sparseflow.masks import Snapshot, budgets, count, criteria, prune, select


def density_for(budget: str, layers: int):
    return [0.3 + 0.4 * k / layers for k in range(layers)] if budget == "vector" else 0.4


def joined(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


every_net = pytest.mark.parametrize("net", NETS)
every_criterion = pytest.mark.parametrize("criterion", criteria.names)
every_budget = pytest.mark.parametrize("budget", budgets.names)


# Numbers -----------------------------------------------------------------------------------------------------------


@every_net
@every_criterion
@every_budget
def test_exactly_as_many_as_the_budget_says(net, criterion, budget):
    of = case(net)
    shapes = {name: weight.shape for name, weight in of.weights.items()}
    density = density_for(budget, len(shapes))
    goal = count(budget, shapes, density)
    first, again = (run(criterion, of, density, budget=budget, seed=3) for _ in range(2))
    assert list(first) == list(shapes)
    assert all(mask.dtype is torch.bool and mask.shape == shapes[name] for name, mask in first.items())
    found = {name: int(mask.sum()) for name, mask in first.items()}
    assert all(found.values())
    assert (sum(found.values()) if isinstance(goal, int) else found) == goal
    assert all(torch.equal(first[name], again[name]) for name in first)


@every_budget
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.03])
def test_budgets_are_within_the_layers_and_leave_none_empty(budget, density):
    """What every budget promises, for one that is added tomorrow too."""
    shapes = {name: torch.Size(s) for name, s in {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (10, 32)}.items()}
    given = [density] * 3 if budget == "vector" else density
    options = {"last": density} if budget == "smart-ratios" else {}
    found = count(budget, shapes, given, **options)
    total = sum(shape.numel() for shape in shapes.values())
    assert found == count(budget, shapes, given, **options)
    if budgets.entry(budget).facts["layerwise"]:
        assert list(found) == list(shapes)
        assert all(1 <= k <= shapes[name].numel() for name, k in found.items())
        assert abs(sum(found.values()) - density * total) <= len(shapes) / 2
        if density >= 0.1:
            kept = count(budget, shapes, given, {"a"}, **options)
            assert kept["a"] == shapes["a"].numel()
    else:
        assert abs(found - density * total) <= 0.5


@every_criterion
@pytest.mark.parametrize("budget", ["global", "uniform"])
def test_the_best_scored_stay(criterion, budget):
    """Larger is kept, of each layer or of all together, by the very scores of the criterion."""
    of = case("residual")
    copied = copy.deepcopy(of.model).train(criteria.entry(criterion).facts["mode"] == "train")
    everything = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in of.weights.items()}
    scores = criteria[criterion](Snapshot(copied, list(of.weights), everything, of.loss, of.batches))
    assert scores.keys() == everything.keys()
    masks = run(criterion, of, 0.3, budget=budget, rounds=1, empty="allow")
    groups = [list(masks)] if budget == "global" else [[name] for name in masks]
    for group in groups:
        kept = torch.cat([scores[name][masks[name]] for name in group])
        left = torch.cat([scores[name][~masks[name]] for name in group])
        assert kept.min() >= left.max()


@every_criterion
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_rounds_end_at_the_same_number(criterion, rounds):
    of = case("perceptron")
    seen = []
    masks = run(criterion, of, 0.13, rounds=rounds, budget="global", progress=lambda *at: seen.append(at))
    assert int(joined(masks).sum()) == count("global", {n: w.shape for n, w in of.weights.items()}, 0.13)
    assert seen == [(k, rounds) for k in range(1, rounds + 1)]


@every_criterion
def test_all_weights_at_density_1_and_others_for_another_seed_where_they_are_drawn(criterion):
    of = case("perceptron")
    assert all(mask.all() for mask in run(criterion, of, 1.0).values())
    masks = [joined(run(criterion, of, 0.4, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    if criterion == "random":
        assert not torch.equal(masks[0], masks[2])


@every_net
@every_criterion
def test_dense_layers_keep_everything_and_count(net, criterion):
    of = case(net)
    shapes = {name: weight.shape for name, weight in of.weights.items()}
    output = "4.weight" if net == "perceptron" else "output.weight"
    for budget in ("global", "erk"):
        masks = run(criterion, of, 0.5, budget=budget, dense=output)
        assert masks[output].all()
        assert int(joined(masks).sum()) == count("global", shapes, 0.5)


@every_criterion
def test_scoring_inside_no_grad_is_the_same(criterion):
    of = case("residual")
    outside = run(criterion, of, 0.4)
    with torch.no_grad():
        inside = run(criterion, of, 0.4)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(outside[name], inside[name]) for name in outside)


@every_criterion
def test_frozen_weights_are_scored_like_all(criterion):
    of = case("residual")
    free = run(criterion, of, 0.4)
    of.model.requires_grad_(False)
    frozen = run(criterion, of, 0.4)
    assert all(torch.equal(free[name], frozen[name]) for name in free)
    assert not any(p.requires_grad for p in of.model.parameters())


# Which weights -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """The output's weight is the first layer's too, but not its bias; a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.output = (nn.Linear(6, 6) for _ in range(3))
        self.norm = nn.LayerNorm(6)
        self.output.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(self.middle(self.first(x))))


@every_criterion
def test_a_weight_that_two_layers_share_counts_once_under_its_first_name(criterion):
    of = case("perceptron")
    with drawn(0):
        of.model = Tied().double()
    masks = run(criterion, of, 0.5, budget="global")
    assert list(masks) == ["first.weight", "middle.weight"]
    assert int(joined(masks).sum()) == (6 * 6 + 6 * 6) // 2


def test_patterns_types_and_predicates():
    of = case("residual")

    def pruned(**settings):
        return list(prune(of.model, "magnitude", 0.5, **settings))

    every = ["first.weight", "second.weight", "output.weight"]
    assert pruned() == every
    assert pruned(only="first*") == ["first.weight"]
    assert pruned(only="second.weight") == ["second.weight"]
    assert pruned(only=["out*", "first"]) == ["first.weight", "output.weight"]  # the model's order
    assert pruned(only=nn.Conv2d) == every[:2]
    assert pruned(only=[nn.Linear, "f?rst"]) == ["first.weight", "output.weight"]
    assert pruned(only=lambda name, weight: weight.numel() > 100) == ["second.weight"]
    assert pruned(exclude="[fs]*") == ["output.weight"]
    assert pruned(exclude=nn.Linear) == every[:2]
    assert pruned(only=nn.Conv2d, exclude="first") == ["second.weight"]
    assert pruned(exclude=[lambda name, weight: name.startswith("f"), nn.Linear]) == ["second.weight"]
    of_selected = prune(of.model, "magnitude", 0.25, only=nn.Conv2d)
    assert int(joined(of_selected).sum()) == (2 * 4 * 9 + 4 * 4 * 9) // 4
    kept = prune(of.model, "magnitude", 0.5, dense=["first", nn.Linear])
    assert kept["first.weight"].all()
    assert kept["output.weight"].all()
    assert int(joined(kept).sum()) == (72 + 144 + 12) // 2


def test_the_uniform_budget_gives_the_others_the_density_itself():
    of = case("residual")
    masks = prune(of.model, "magnitude", 0.25, budget="uniform", dense="first")
    assert {name: int(m.sum()) for name, m in masks.items()} == {
        "first.weight": 72,
        "second.weight": 36,
        "output.weight": 3,
    }


def test_all_layers_may_be_dense():
    of = case("residual")
    for budget in ("global", "uniform", "erk"):
        masks = prune(of.model, "magnitude", 1.0, budget=budget, dense="*")
        assert all(mask.all() for mask in masks.values())


@every_criterion
def test_what_is_not_selected_has_no_mask_and_no_influence_on_the_number(criterion):
    of = case("transformer")
    masks = run(criterion, of, 0.5, only=["layer.linear?"], budget="global")
    assert list(masks) == ["layer.linear1.weight", "layer.linear2.weight"]
    assert int(joined(masks).sum()) == 96


def test_a_criterion_of_ones_own():
    of = case("perceptron")

    def odd(at: Snapshot, *, factor: float = 1.0):
        """Prefers the entries of odd columns."""
        assert list(at.names) == list(of.weights)
        return {name: factor * (torch.arange(w.numel()).view(w.shape) % 2) for name, w in at.weights.items()}

    masks = prune(of.model, odd, 0.25)
    wanted = {n: torch.arange(w.numel()).view(w.shape) % 2 == 1 for n, w in of.weights.items()}
    assert all(not (masks[name] & ~wanted[name]).any() for name in masks)
    other = prune(of.model, odd, 0.25, factor=-1.0)
    assert not (joined(other) & joined(wanted)).any()


def test_every_weight_is_as_likely_in_several_rounds_as_in_one():
    """Ties are drawn anew in every round."""
    layer = nn.Linear(4, 1)
    kept = [int(prune(layer, "random", 0.25, rounds=2, seed=seed)["weight"].nonzero()[0, 1]) for seed in range(300)]
    assert stats.chisquare(np.bincount(kept, minlength=4)).pvalue > 1e-4


def test_infinite_scores_are_scores():
    of = case("perceptron")

    def wild(at: Snapshot):
        return {name: torch.where(w > 0, inf, -inf) for name, w in at.weights.items()}

    masks = prune(of.model, wild, 0.2)
    assert all((of.weights[name][mask] > 0).all() for name, mask in masks.items())


def test_selection_is_the_one_way_to_masks():
    """`prune` with one round is the criterion's scores, the budget's numbers and `select`, and nothing else."""
    of = case("perceptron")
    shapes = {name: weight.shape for name, weight in of.weights.items()}
    scores = {name: weight.detach().abs() for name, weight in of.weights.items()}
    expected = select(scores, count("erk", shapes, 0.3), seed=5)
    masks = prune(of.model, "magnitude", 0.3, budget="erk", seed=5)
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
