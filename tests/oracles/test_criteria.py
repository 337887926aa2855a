"""Scores against their definitions in float64: finite differences, dense Hessians, loops written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import grad
from torch.nn import functional as F

from by_hand import best, dense_hessian, detached, flat, loss_of, same, scores_of
from small_nets import case
from sparseflow.core import Batch, weight_shapes
from sparseflow.masks import balanced, count, criteria, prune, random_masks

# Magnitude and random ----------------------------------------------------------------------------------------------


def test_magnitude_keeps_the_largest_of_all_or_of_each_layer():
    of = case("residual")
    sizes = {name: np.abs(w.numpy()) for name, w in detached(of.model).items()}
    total = sum(size.size for size in sizes.values())
    for density in (0.5, 0.1):
        everywhere = best(sizes, round(density * total))
        assert same(prune(of.model, "magnitude", density, empty="allow"), everywhere)
        each = {name: best({name: size}, max(1, round(density * size.size)))[name] for name, size in sizes.items()}
        assert same(prune(of.model, "magnitude", density, budget="uniform"), each)


def test_random_is_random_masks_of_the_budget():
    of = case("transformer")
    shapes = weight_shapes(of.model)
    for budget in ("uniform", "erk"):
        expected = random_masks(shapes, count(budget, shapes, 0.3), seed=4)
        masks = prune(of.model, "random", 0.3, budget=budget, seed=4)
        assert all(torch.equal(masks[name], expected[name]) for name in shapes)
    assert {name: int(m.sum()) for name, m in prune(of.model, "random", 0.3).items()} == count("uniform", shapes, 0.3)


# SNIP --------------------------------------------------------------------------------------------------------------


def test_snip_is_the_derivative_of_a_gate_on_every_connection():
    """Lee et al. 2019, eq. 3-5: dL(c * theta)/dc at c = 1, by central differences."""
    of = case("perceptron")
    weights, loss = detached(of.model), loss_of(of, of.batches)
    scores = scores_of("snip", of)
    step = 1e-5
    for name, weight in weights.items():
        slopes = torch.zeros_like(weight)
        for place in np.ndindex(*weight.shape):
            gate = torch.ones_like(weight)
            gate[place] += step
            above = loss({**weights, name: weight * gate})
            gate[place] -= 2 * step
            slopes[place] = (above - loss({**weights, name: weight * gate})) / (2 * step)
        torch.testing.assert_close(scores[name], slopes.abs(), rtol=1e-6, atol=1e-9)


def test_snip_in_one_round_keeps_the_largest():
    of = case("residual")
    weights = detached(of.model)
    gradients = grad(loss_of(of, of.batches, training=True))(weights)
    expected = best({name: (w * gradients[name]).abs().numpy() for name, w in weights.items()}, round(0.2 * 228))
    assert sum(w.numel() for w in weights.values()) == 228
    settings = {"batches": of.batches, "loss": of.loss, "empty": "allow"}
    assert same(prune(of.model, "snip", 0.2, **settings), expected)
    other = grad(loss_of(of, of.batches, training=False))(weights)  # running statistics instead of the batch's
    in_eval = best({name: (w * other[name]).abs().numpy() for name, w in weights.items()}, round(0.2 * 228))
    assert same(prune(of.model, "snip", 0.2, mode="eval", **settings), in_eval)
    assert any((in_eval[name] != expected[name]).any() for name in expected)


def test_iterative_snip_is_the_loop_written_out():
    """Three rounds to 9 of 92 weights: 42, 20, 9; pruned weights are 0 and never come back."""
    of = case("perceptron")
    weights, loss = detached(of.model), loss_of(of, of.batches)
    total = flat(weights).numel()
    kept = {name: np.ones(w.shape, dtype=bool) for name, w in weights.items()}
    assert total == 92
    for keep in (42, 20, 9):  # 92 * (9 / 92)^(k / 3)
        pruned = {name: w * torch.from_numpy(kept[name]) for name, w in weights.items()}
        gradients = grad(loss)(pruned)
        scores = {name: np.where(kept[name], (w * gradients[name]).abs().numpy(), -1.0) for name, w in pruned.items()}
        kept = best(scores, keep)
    settings = {"batches": of.batches, "loss": of.loss, "empty": "allow"}
    masks = prune(of.model, "snip", 0.1, rounds=3, **settings)
    assert same(masks, kept)
    once = prune(of.model, "snip", 0.1, **settings)
    assert not same(once, kept)


# GraSP -------------------------------------------------------------------------------------------------------------


def in_halves(batches: list[Batch]) -> list[Batch]:
    found = []
    for x, y in batches:
        middle = len(y) // 2
        found += [(x[:middle], y[:middle]), (x[middle:], y[middle:])]
    return found


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize(("net", "temperature"), [("perceptron", 200.0), ("perceptron", 1.0), ("residual", 200.0)])
def test_grasp_is_theta_times_the_dense_hessian_times_the_gradient(net, temperature, halves):
    """Wang et al. 2020, eq. 8: S(-theta) = -theta * (H g), the highest removed; so theta * (H g) says what stays."""
    of = case(net)
    weights = detached(of.model)
    batches = in_halves(of.batches) if halves else of.batches
    loss = loss_of(of, batches, training=True, temperature=temperature)
    g = flat(grad(loss)(weights))
    expected = flat(weights) * (dense_hessian(loss, weights) @ g)
    scores = scores_of("grasp", of, temperature=temperature, halves=halves)
    torch.testing.assert_close(flat(scores), expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))
    k = round(0.3 * len(expected))
    settings = {"batches": of.batches, "loss": of.loss, "temperature": temperature, "halves": halves, "empty": "allow"}
    masks = prune(of.model, "grasp", 0.3, **settings)
    highest = (-expected).argsort(descending=True)[: len(expected) - k]
    assert sorted((~flat(masks)).nonzero().flatten().tolist()) == sorted(highest.tolist())


def test_grasp_in_halves_differs_only_by_batch_statistics():
    plain, normed = case("perceptron"), case("residual")
    for of in (plain, normed):
        of.batches = [(x[:4], y[:4]) for x, y in of.batches]  # equal halves
    found = {
        name: [flat(scores_of("grasp", c, halves=h)) for h in (True, False)]
        for name, c in {"plain": plain, "normed": normed}.items()
    }
    torch.testing.assert_close(*found["plain"], rtol=1e-9, atol=1e-20)
    assert (found["normed"][0] - found["normed"][1]).abs().max() > 1e-2 * found["normed"][1].abs().max()
    in_eval = [flat(scores_of("grasp", normed, training=False, halves=h)) for h in (True, False)]
    torch.testing.assert_close(*in_eval, rtol=1e-9, atol=1e-20)


def test_grasp_divides_the_logits():
    """Its own temperature against a loss that divides them: 200 is the default."""
    of = case("perceptron")
    default = flat(scores_of("grasp", of))
    of.loss = lambda out, y: F.cross_entropy(out / 200.0, y)
    torch.testing.assert_close(flat(scores_of("grasp", of, temperature=1.0)), default, rtol=1e-12, atol=0)


def test_grasp_of_one_example():
    of = case("perceptron")
    of.batches = [(x[:1], y[:1]) for x, y in of.batches[:1]]
    torch.testing.assert_close(*(flat(scores_of("grasp", of, halves=h)) for h in (True, False)))


# Scoring examples --------------------------------------------------------------------------------------------------


def test_balanced_takes_the_first_of_every_class():
    y = torch.tensor([2, 0, 0, 1, 2, 2, 1, 0, 1])
    x = torch.arange(9.0)[:, None]
    batches = [(x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])]
    inputs, targets = balanced(batches, 2)
    assert inputs.flatten().tolist() == [0, 1, 2, 3, 4, 6]
    assert targets.tolist() == [2, 0, 0, 1, 2, 1]


def test_prune_scores_on_so_many_examples_of_each_class():
    of = case("perceptron")
    chosen = balanced(of.batches, 2)
    assert torch.bincount(chosen[1]).tolist() == [2, 2, 2]
    expected = prune(of.model, "snip", 0.3, batches=[chosen], loss=of.loss)
    masks = prune(of.model, "snip", 0.3, batches=of.batches, loss=of.loss, samples_per_class=2)
    assert all(torch.equal(masks[name], expected[name]) for name in masks)


def test_batches_without_batch_statistics_may_be_cut_anywhere():
    """The gradient of the mean over all examples, however they are batched."""
    whole = case("perceptron")
    x, y = (torch.cat(parts) for parts in zip(*whole.batches, strict=True))
    cuts = [[(x, y)], [(x[:1], y[:1]), (x[1:], y[1:])], [(x[k : k + 1], y[k : k + 1]) for k in range(11)]]
    for criterion in ("snip", "grasp"):
        found = []
        for batches in cuts:
            whole.batches = batches
            found.append(flat(scores_of(criterion, whole)))
        for scores in found[1:]:
            torch.testing.assert_close(scores, found[0], rtol=1e-9, atol=1e-18)


def test_the_default_of_every_setting_is_the_authors():
    facts = {entry.name: dict(entry.facts) for entry in criteria}
    assert (facts["snip"]["budget"], facts["snip"]["rounds"], facts["snip"]["mode"]) == ("global", 1, "train")
    assert (facts["grasp"]["budget"], facts["grasp"]["rounds"], facts["grasp"]["mode"]) == ("global", 1, "train")
    assert (facts["synflow"]["budget"], facts["synflow"]["rounds"], facts["synflow"]["mode"]) == ("global", 100, "eval")
