"""Hessian products against the dense Hessian and against the change of the gradient, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from by_hand import dense_hessian, detached, flat, loss_of, vector_for
from small_nets import NETS, Case, case
from sparseflow.autodiff import hessian_product, mean_hessian_product
from sparseflow.core import SparseflowError, weight_shapes
from sparseflow.masks import count, random_masks
from sparseflow.sparse import compact


@pytest.mark.parametrize("net", ["perceptron", "lstm"])
def test_hessian_product_is_the_dense_hessians(net):
    of = case(net)
    weights = detached(of.model)
    vector = vector_for(weights)
    of.model.eval()
    expected = dense_hessian(loss_of(of, of.batches[:1], training=False), weights) @ flat(vector)
    found = hessian_product(of.model, of.loss, of.batches[0], vector)
    assert list(found) == list(vector)
    torch.testing.assert_close(flat(found), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_hessian_product_is_the_change_of_the_gradient(net):
    """Along the vector, by central differences: also where a fused kernel has no second derivative, as attention's."""
    of = case(net)
    weights = detached(of.model)
    vector = vector_for(weights)
    of.model.eval()
    slopes = grad(loss_of(of, of.batches[:1], training=False))
    step = 1e-5
    ahead, behind = (flat(slopes({name: w + h * vector[name] for name, w in weights.items()})) for h in (step, -step))
    found = flat(hessian_product(of.model, of.loss, of.batches[0], vector))
    torch.testing.assert_close(found, ((ahead - behind) / (2 * step)).detach(), rtol=1e-5, atol=1e-8)


def test_mean_hessian_product_weights_batches_by_their_examples():
    of = case("perceptron")
    weights = detached(of.model)
    vector = vector_for(weights)
    batches = [*of.batches, (of.batches[0][0][:1] + 1.0, of.batches[0][1][:1])]
    assert [len(y) for _, y in batches] == [7, 4, 1]
    expected = dense_hessian(loss_of(of, batches), weights) @ flat(vector)
    found = mean_hessian_product(of.model, of.loss, batches, vector)
    torch.testing.assert_close(flat(found), expected, rtol=1e-9, atol=1e-12)
    together = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    torch.testing.assert_close(flat(mean_hessian_product(of.model, of.loss, together, vector)), expected)


def masked_perceptron() -> tuple[Case, dict[str, Tensor]]:
    """Its weights are 0 outside of the masks, of 40 %."""
    of = case("perceptron")
    shapes = weight_shapes(of.model)
    masks = random_masks(shapes, count("uniform", shapes, 0.4), seed=0)
    with torch.no_grad():
        for name, mask in masks.items():
            of.model.get_parameter(name).mul_(mask)
    return of, masks


def test_masked_entries_count_as_weights_of_value_0():
    """Their rows and columns of the Hessian are there."""
    of, masks = masked_perceptron()
    weights = detached(of.model)
    vector = vector_for(weights)
    expected = dense_hessian(loss_of(of, of.batches), weights) @ flat(vector)
    found = mean_hessian_product(of.model, of.loss, of.batches, vector)
    torch.testing.assert_close(flat(found), expected, rtol=1e-9, atol=1e-12)
    assert flat(found)[~flat(masks)].abs().max() > 1e-3


def test_products_through_compact_layers_are_right_and_by_them_refused():
    of, masks = masked_perceptron()
    weights = detached(of.model)
    vector = vector_for(weights)
    start, size = weights["0.weight"].numel(), weights["2.weight"].numel()
    block = dense_hessian(loss_of(of, of.batches), weights)[start : start + size, start : start + size]
    assert compact(of.model, {name: masks[name] for name in ("0.weight", "4.weight")}).compacted
    of_plain = mean_hessian_product(of.model, of.loss, of.batches, {"2.weight": vector["2.weight"]})
    torch.testing.assert_close(flat(of_plain), block @ vector["2.weight"].flatten(), rtol=1e-8, atol=1e-11)
    with pytest.raises(SparseflowError, match=r"^0\.weight, 4\.weight is compact and gives no second derivatives"):
        hessian_product(of.model, of.loss, of.batches[0], vector)


def test_weights_that_the_vector_does_not_name_are_held_fixed():
    of = case("perceptron")
    weights = detached(of.model)
    vector = {"2.weight": vector_for(weights)["2.weight"]}
    start, size = weights["0.weight"].numel(), weights["2.weight"].numel()
    block = dense_hessian(loss_of(of, of.batches), weights)[start : start + size, start : start + size]
    found = mean_hessian_product(of.model, of.loss, of.batches, vector)
    assert list(found) == ["2.weight"]
    torch.testing.assert_close(flat(found), block @ flat(vector), rtol=1e-9, atol=1e-12)


def test_a_linear_loss_has_no_curvature():
    of = case("perceptron")
    linear = nn.Sequential(nn.Linear(6, 3, dtype=torch.float64))
    vector = vector_for(detached(linear))
    found = mean_hessian_product(linear, lambda out, y: out.mean(), of.batches, vector)
    assert found["0.weight"].shape == (3, 6)
    assert not found["0.weight"].any()
    # Bilinear: no second derivative by one weight, one by two of them.
    pair = nn.Sequential(
        nn.Linear(6, 2, bias=False, dtype=torch.float64), nn.Linear(2, 1, bias=False, dtype=torch.float64)
    )
    weights = detached(pair)
    vector = vector_for(weights)
    x = of.batches[0][0]
    found = hessian_product(pair, lambda out, y: out.sum(), of.batches[0], vector)
    torch.testing.assert_close(found["0.weight"], vector["1.weight"].T @ x.sum(0, keepdim=True))
    torch.testing.assert_close(found["1.weight"], (x @ vector["0.weight"].T).sum(0, keepdim=True))


def test_a_weight_that_the_loss_does_not_reach_has_no_curvature():
    of = case("perceptron")
    of.model.unused = nn.Linear(2, 2, dtype=torch.float64)
    of.model.forward = lambda x: nn.Sequential(*list(of.model.children())[:-1])(x)
    found = hessian_product(of.model, of.loss, of.batches[0], vector_for(detached(of.model)))
    assert not found["unused.weight"].any()
    assert found["0.weight"].any()


def test_hessian_products_refuse_what_has_none():
    of = case("perceptron")
    vector = vector_for(detached(of.model))
    with pytest.raises(SparseflowError, match=r"must return a scalar tensor, got shape \(7, 3\)"):
        hessian_product(of.model, lambda out, y: out, of.batches[0], vector)
    with pytest.raises(SparseflowError, match="no batches were given"):
        mean_hessian_product(of.model, of.loss, [], vector)
    of.model.get_parameter("2.weight").requires_grad_(False)
    with pytest.raises(SparseflowError, match=r"frozen weights: 2\.weight"):
        hessian_product(of.model, of.loss, of.batches[0], vector)
