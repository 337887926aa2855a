"""Similarity of networks against closed forms, scipy and plain loops."""

from __future__ import annotations

import copy
from itertools import combinations, permutations
from math import log

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, jensenshannon
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.manifold import smacof

from curved import curved
from sparseflow.core import BadValue
from sparseflow.measure import answers, similarity
from sparseflow.sparse import compact
from sparseflow.stats import Summary


def logits(models: int, examples: int = 50, classes: int = 4, scale: float = 2.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(models)
    return list(scale * torch.randn(models, examples, classes, generator=draw))


SURE = 200.0
"""A logit that leaves the other classes nothing."""


def certain(*classes: int) -> torch.Tensor:
    return SURE * torch.eye(5)[list(classes)]


# Weights -------------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_the_active_weights():
    nets = [curved("masked", seed) for seed in range(3)]
    masks = nets[0].masks
    states = [net.model.state_dict() for net in nets]
    at = similarity.points(nets[0].model, states, masks)
    active = sum(int(mask.sum()) for mask in masks.values())
    assert at.shape == (3, active)
    by_hand = np.array([np.concatenate([s[n].numpy()[masks[n].numpy()] for n in masks]) for s in states])
    np.testing.assert_array_equal(at, by_hand)
    np.testing.assert_allclose(similarity.distances(at), cdist(by_hand, by_hand), rtol=1e-12)
    biases = sum(s.numel() for n, s in states[0].items() if n.endswith("bias"))
    assert similarity.points(nets[0].model, states, masks, others=True).shape == (3, active + biases)
    assert similarity.points(nets[0].model, states).shape == (3, sum(m.numel() for m in masks.values()))
    made = compact(copy.deepcopy(nets[0].model), masks)
    assert made.compacted
    torch.testing.assert_close(similarity.points(made.model, states), at)


def test_near_points_keep_their_distance():
    at = torch.full((2, 1000), 1e4, dtype=torch.float64)
    at[1, 0] += 1e-7
    assert float(similarity.distances(at)[0, 1]) == pytest.approx(1e-7, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_points_of_a_plane_are_restored(scale):
    """Also of a plane in a space of many dimensions."""
    draw = np.random.default_rng(0)
    flat = scale * draw.normal(size=(12, 2))
    basis, _ = np.linalg.qr(draw.normal(size=(100, 2)))
    between = similarity.distances(torch.from_numpy(flat @ basis.T + 3.0))
    found = similarity.embed(between)
    np.testing.assert_allclose(cdist(found, found), cdist(flat, flat), rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9 * scale)


def test_points_that_do_not_fit_a_plane_are_as_near_as_a_search_gets_them():
    """No worse than scikit-learn's best of many random starts."""
    draw = np.random.default_rng(1)
    d = cdist(*[draw.normal(size=(9, 6))] * 2)
    found = similarity.embed(torch.from_numpy(d))
    stress = ((cdist(found, found) - d)[np.triu_indices(9)] ** 2).sum()
    _, best = smacof(d, n_components=2, n_init=8, random_state=0, eps=1e-9, normalized_stress=False)
    assert stress <= best * 1.05
    assert np.array_equal(found, similarity.embed(torch.from_numpy(d)))


def test_few_points_have_a_place():
    assert similarity.embed(torch.zeros(1, 1)).shape == (1, 2)
    two = similarity.embed(torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    assert np.linalg.norm(two[0] - two[1]) == pytest.approx(3)
    assert not similarity.embed(torch.zeros(4, 4)).any()
    for bad in ([[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]], [[0.0, -1.0], [-1.0, 0.0]], [[0.0, 1.0]]):
        with pytest.raises(BadValue, match="takes a symmetric matrix"):
            similarity.embed(torch.tensor(bad))


def test_states_that_do_not_fit_are_refused():
    net = curved("masked")
    state = net.model.state_dict()
    with pytest.raises(BadValue, match="there are no states"):
        similarity.points(net.model, [], net.masks)
    with pytest.raises(BadValue, match=r"the state has no '4\.weight'"):
        similarity.points(net.model, [{n: w for n, w in state.items() if n != "4.weight"}], net.masks)
    with pytest.raises(BadValue, match=r"4\.weight has shape \(2, 2\), the model's \(3, 5\)"):
        similarity.points(net.model, [{**state, "4.weight": torch.zeros(2, 2)}], net.masks)


# Answers -------------------------------------------------------------------------------------------------------------


def test_answers_are_the_logits_in_evaluation_mode():
    net = curved("norm")
    net.model.train()
    found, targets = answers(net.model, net.batches)
    net.model.eval()
    torch.testing.assert_close(found, torch.cat([net.model(x) for x, _ in net.batches]).detach())
    assert torch.equal(targets, torch.cat([y for _, y in net.batches]))


def test_divergences_are_scipys():
    p, q = (softmax(one.double().numpy(), 1) for one in logits(2))
    assert similarity.kl(*logits(2)) == pytest.approx(entropy(p, q, axis=1).mean())
    assert similarity.kl(*logits(2)[::-1]) == pytest.approx(entropy(q, p, axis=1).mean())
    assert similarity.kl(*logits(2), over="sum") == pytest.approx(entropy(p, q, axis=1).sum())
    assert similarity.jsd(logits(2)) == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean())
    five = np.array([softmax(one.double().numpy(), 1) for one in logits(5)])
    expected = entropy(five.mean(0), axis=1) - entropy(five, axis=2).mean(0)
    assert similarity.jsd(logits(5)) == pytest.approx(expected.mean())
    assert similarity.jsd(logits(5), over="sum") == pytest.approx(expected.sum())
    with pytest.raises(BadValue, match="over must be 'mean' or 'sum', got 'max'"):
        similarity.jsd(logits(5), over="max")


def test_a_model_differs_in_nothing_from_itself():
    (one,) = logits(1)
    assert similarity.disagreement(one, one) == 0
    assert similarity.kl(one, one) == 0
    assert similarity.jsd([one] * 5) == pytest.approx(0, abs=1e-14)
    # Nor from one with other logits of the same probabilities.
    assert similarity.kl(one, one + 3.0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("models", [2, 5])
def test_the_divergence_is_symmetric_and_bounded(models):
    some = logits(models, scale=8.0)
    found = similarity.jsd(some)
    assert 0 < found < log(models)
    for order in list(permutations(some))[:10]:
        assert similarity.jsd(order) == pytest.approx(found, rel=1e-12)
    apart = [certain(k, k) for k in range(models)]
    assert similarity.jsd(apart) == pytest.approx(log(models), rel=1e-12)
    assert similarity.jsd(apart) <= log(models) * (1 + 1e-12)
    assert similarity.jsd(apart, over="sum") == pytest.approx(2 * log(models))
    assert similarity.kl(certain(0), certain(1)) == pytest.approx(SURE)  # finite where probabilities underflow


def test_disagreement_by_hand():
    assert similarity.disagreement(certain(0, 1, 2, 3), certain(0, 1, 3, 2)) == 0.5


def test_an_ensemble_averages_probabilities():
    """Not votes, nor logits: two unsure models lose to a sure one."""
    unsure = torch.log(torch.tensor([[0.55, 0.45]]))
    sure = torch.log(torch.tensor([[0.01, 0.99]]))
    found = similarity.ensemble([unsure, unsure, sure])
    torch.testing.assert_close(found, torch.tensor([[1.11 / 3, 1.89 / 3]], dtype=torch.float64))
    some = logits(5)
    torch.testing.assert_close(similarity.ensemble([some[0]] * 5), torch.softmax(some[0].double(), 1))
    expected = np.mean([softmax(one.double().numpy(), 1) for one in some], 0)
    np.testing.assert_allclose(similarity.ensemble(some), expected)


@pytest.mark.parametrize("over", ["mean", "sum"])
def test_a_comparison_is_the_table_row(over):
    some, targets = logits(4), torch.arange(50) % 4
    *group, pruned = some
    found = similarity.compare(group, targets, pruned, over=over)
    right = [float((one.argmax(1) == targets).double().mean()) for one in group]
    _same(found.accuracy, right)
    assert found.ensemble == similarity.accuracy(similarity.ensemble(group), targets)
    _same(found.disagreement, [similarity.disagreement(*pair) for pair in combinations(group, 2)])
    _same(found.kl, [similarity.kl(*pair, over=over) for pair in permutations(group, 2)])
    assert found.jsd == similarity.jsd(group, over=over)
    _same(found.reference_disagreement, [similarity.disagreement(one, pruned) for one in group])
    _same(found.to_reference, [similarity.kl(one, pruned, over=over) for one in group])
    _same(found.from_reference, [similarity.kl(pruned, one, over=over) for one in group])
    _same(found.reference_jsd, [similarity.jsd([one, pruned], over=over) for one in group])


def _same(found: Summary | None, values: list[float]) -> None:
    assert found is not None
    assert (found.mean, found.std, found.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        len(values),
    )


def test_five_copies_are_the_copy():
    (one,), targets = logits(1), torch.arange(50) % 4
    found = similarity.compare([one] * 5, targets, one)
    assert found.ensemble == found.accuracy.mean == similarity.accuracy(one, targets)
    assert found.disagreement.mean == found.kl.mean == found.reference_disagreement.mean == 0
    assert found.jsd == pytest.approx(0, abs=1e-14)
    alone = similarity.compare([one], targets)
    assert (alone.disagreement, alone.kl, alone.jsd, alone.reference_jsd) == (None,) * 4


def test_answers_that_do_not_fit_are_refused():
    with pytest.raises(BadValue, match="there are no models"):
        similarity.ensemble([])
    with pytest.raises(BadValue, match=r"of the same examples, got \(2, 5\) and \(3, 5\)"):
        similarity.disagreement(certain(0, 1, 2), certain(0, 1))
    with pytest.raises(BadValue, match="logits of 3 examples and 2 targets"):
        similarity.compare([certain(0, 1, 2)], torch.zeros(2))
    with pytest.raises(BadValue, match=r"got \(50, 4\) and"):
        similarity.compare([certain(0, 1, 2)], torch.zeros(3), logits(1)[0])
