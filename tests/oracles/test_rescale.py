"""The learned rescaling against itself written out, and against what it promises."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import Sparse, compact
from sparseflow.autodiff import loss_at
from sparseflow.core import BadValue, Batch, SparseflowError, weight_shapes
from sparseflow.init import from_fans_, rescale_
from sparseflow.masks import random_masks, uniform


def conv_net(seed: int = 0, width: int = 8) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for into, out, stride in ((1, width, 1), (width, width, 2), (width, 2 * width, 2)):
            layers += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 4))


def batches(count: int = 6, size: int = 32, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Images of four classes: a bright quarter in noise."""
    draw = torch.Generator().manual_seed(7)
    found = []
    for _ in range(count):
        y = torch.randint(4, (size,), generator=draw)
        x = torch.randn(size, 1, 8, 8, generator=draw, dtype=dtype)
        for image, k in zip(x, y, strict=True):
            image[:, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] += 0.7
        found.append((x, y))
    return found


def masks_of(model: nn.Module, density: float = 0.2, seed: int = 0) -> dict[str, Tensor]:
    shapes = weight_shapes(model)
    return random_masks(shapes, uniform(shapes, density), seed=seed)


def tiny(weight: Tensor | None = None) -> tuple[nn.Module, dict[str, Tensor], list[Batch]]:
    """Two linear layers and tanh, without a norm, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    masks = {"0.weight": torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.5}
    draw = torch.Generator().manual_seed(2)
    made = [(torch.randn(9, 5, generator=draw).double(), torch.randint(3, (9,), generator=draw)) for _ in range(3)]
    return model, masks, made


def written_out(model, masks, made, *, lr, gamma, iterations, rate=0.01, bound=0.01):
    """Algorithm 1 with derivatives by central differences, and Adam by its formula."""
    start = {name: (p.detach() * masks.get(name, torch.ones_like(p))) for name, p in model.named_parameters()}

    def gradients(scales: Tensor, batch: Batch) -> dict[str, Tensor]:
        at = {name: (s * v).requires_grad_() for s, (name, v) in zip(scales, start.items(), strict=True)}
        loss = F.cross_entropy(torch.func.functional_call(model, at, (batch[0],)), batch[1])
        found = torch.autograd.grad(loss, list(at.values()))
        return {name: g * masks.get(name, torch.ones_like(g)) for name, g in zip(at, found, strict=True)}

    def norm(scales: Tensor, batch: Batch) -> float:
        return sum(float(g.square().sum()) for g in gradients(scales, batch).values()) ** 0.5

    def loss_after(scales: Tensor, batch: Batch, other: Batch) -> float:
        g = gradients(scales, batch)
        at = {name: s * v - lr * g[name] for s, (name, v) in zip(scales, start.items(), strict=True)}
        return float(F.cross_entropy(torch.func.functional_call(model, at, (other[0],)), other[1]))

    scales = torch.ones(len(start), dtype=torch.float64)
    first, second = torch.zeros_like(scales), torch.zeros_like(scales)
    turn, norms, losses = 0, [], []
    for step in range(1, iterations + 1):
        batch, other = made[turn % 3], made[(turn + 1) % 3]
        norms.append(norm(scales, batch))
        down = norms[-1] > gamma
        turn += 1 if down else 2
        of = (lambda s, b=batch: norm(s, b)) if down else (lambda s, b=batch, o=other: loss_after(s, b, o))
        losses.append(None if down else of(scales))
        steps = 1e-6 * torch.eye(len(scales), dtype=torch.float64)
        slope = torch.tensor([(of(scales + e) - of(scales - e)) / 2e-6 for e in steps], dtype=torch.float64)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        scales = scales - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        scales = scales.clamp(min=bound)
    return dict(zip(start, scales.tolist(), strict=True)), norms, losses


@pytest.mark.parametrize("gamma", [100.0, 0.35, 0.01])
def test_it_is_the_algorithm_written_out(gamma):
    """Always ahead; now down the norm, now ahead; always down the norm."""
    model, masks, made = tiny()
    with torch.no_grad():
        model[0].bias.zero_()
    scales, norms, losses = written_out(model, masks, made, lr=0.5, gamma=gamma, iterations=8)
    before = copy.deepcopy(model)
    found = rescale_(model, masks, F.cross_entropy, made, lr=0.5, gamma=gamma, iterations=8)
    # A block of zeros has no slope, where Adam's update is a rounding's.
    del scales["0.bias"]
    assert {name: found.scales[name] for name in scales} == pytest.approx(scales, rel=1e-5)
    assert found.norms == pytest.approx(norms, rel=1e-5)
    assert [x is None for x in found.losses] == [x is None for x in losses]
    assert [x for x in found.losses if x is not None] == pytest.approx([x for x in losses if x is not None], rel=1e-5)
    assert len({x is None for x in losses}) == (2 if gamma == 0.35 else 1)
    for name, p in model.named_parameters():
        start = before.get_parameter(name) * masks.get(name, torch.ones_like(p))
        torch.testing.assert_close(p, start * found.scales[name], rtol=1e-14, atol=0)


def test_what_lies_under_the_mask_changes_nothing():
    outcomes = []
    for garbage in (0.0, 3e7, float("nan")):
        model = conv_net()
        masks = masks_of(model)
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name)[~mask] = garbage
        done = rescale_(model, masks, F.cross_entropy, batches(), iterations=5)
        assert not any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())
        outcomes.append((done, [p.tolist() for p in model.parameters()]))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_the_bound_holds_and_is_reached():
    model = conv_net()
    done = rescale_(model, {}, F.cross_entropy, batches(), iterations=30, scale_lr=0.3, gamma=0.05, bound=0.2)
    assert min(done.scales.values()) == pytest.approx(0.2)
    assert all(scale >= 0.2 - 1e-7 for scale in done.scales.values())


def test_only_the_parameters_change():
    model = conv_net().eval()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    generator = torch.get_rng_state()
    done = rescale_(model, {}, F.cross_entropy, iter(batches(40)), iterations=5)
    assert torch.equal(generator, torch.get_rng_state())
    assert not model.training
    assert "0.weight" not in done.scales
    assert torch.equal(model[0].weight, before[0].weight)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before.buffers(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert not torch.equal(model[3].weight, before[3].weight)


def test_dropout_is_drawn_from_the_seed():
    def scales(seed: int) -> dict[str, float]:
        model = nn.Sequential(conv_net(), nn.Dropout(0.5))
        return rescale_(model, {}, F.cross_entropy, batches(), iterations=4, seed=seed).scales

    assert scales(1) == scales(1) != scales(2)


@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0, 40.0])
def test_a_scaled_convolution_under_a_training_batch_norm_changes_no_output(scale):
    """003 sec. 2.3: batch norm absorbs any linear scaling, up to its eps."""
    model = conv_net(seed=5).double()
    x = batches(1, dtype=torch.float64)[0][0] * 100
    expected = model(x)
    with torch.no_grad():
        model[0].weight.mul_(scale)
        for norm in (model[1], model[4], model[7]):
            norm.eps = 1e-8  # of variances from 1 to 10^4
    assert (model(x) - expected).abs().max() < 1e-4


def one_step(model: nn.Module, masks: dict[str, Tensor], train: Batch, held: Batch, lr: float) -> float:
    """The loss of a held batch after one real step, in training mode."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=2e-4)
    with Sparse(model, masks, optimizer):
        F.cross_entropy(model(train[0]), train[1]).backward()
        optimizer.step()
        return float(F.cross_entropy(model(held[0]), held[1]).detach())


@pytest.mark.slow
def test_a_real_first_step_lowers_a_held_loss_in_9_of_10_sparse_initialisations():
    """With momentum and weight decay, masks at density 0.1 and the weights that fan-counting draws."""
    *search, train, held = batches(8, 32)
    better = 0
    for seed in range(10):
        model = conv_net(seed, width=6)
        masks = masks_of(model, 0.1, seed)
        from_fans_(model, masks, seed=seed)
        plain = one_step(model, masks, train, held, 0.1)
        rescale_(model, masks, F.cross_entropy, search, lr=0.1)
        better += one_step(model, masks, train, held, 0.1) < plain
    assert better >= 9


def test_compact_layers_are_rescaled_like_masked_ones():
    outcomes = []
    for compacted in (False, True):
        model = conv_net().double()
        masks = masks_of(model, 0.4)
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name).mul_(mask)
        if compacted:
            compact(model, masks)
        made = batches(4, 16, torch.float64)
        done = rescale_(model, masks, F.cross_entropy, made, iterations=6, gamma=1.5)
        assert {x is None for x in done.losses} == {True, False}
        outcomes.append((done.scales, {k: v.clone() for k, v in model.state_dict().items()}))
    assert outcomes[0][0].keys() == outcomes[1][0].keys()
    assert list(outcomes[0][0].values()) == pytest.approx([outcomes[1][0][k] for k in outcomes[0][0]], rel=1e-6)
    for name, value in outcomes[0][1].items():
        torch.testing.assert_close(outcomes[1][1][name], value, rtol=1e-6, atol=1e-9)


def test_loss_at_leaves_the_model_alone():
    model, (x, y) = conv_net(), batches(1)[0]
    before = copy.deepcopy(model.state_dict())
    other = {name: p * 2 for name, p in model.named_parameters()}
    value = loss_at(model, F.cross_entropy, (x, y), other)
    assert all(torch.equal(a, before[name]) for name, a in model.state_dict().items())
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for p in doubled.parameters():
            p.mul_(2)
    assert torch.equal(value, F.cross_entropy(doubled(x), y))
    with pytest.raises(SparseflowError, match=r"scalar tensor, got shape \(32,\)"):
        loss_at(model, lambda out, y: out.sum(1), (x, y), other)


def test_bad_arguments():
    model, made = conv_net(), batches(2, 8)
    for key in ("lr", "gamma", "scale_lr"):
        for value in (0.0, -1.0, float("inf"), float("nan")):
            with pytest.raises(BadValue, match=f"{key} must be positive"):
                rescale_(model, {}, F.cross_entropy, made, **{key: value})
    for bound in (0.0, 1.1, float("nan")):
        with pytest.raises(BadValue, match=r"bound must be in \(0, 1\]"):
            rescale_(model, {}, F.cross_entropy, made, bound=bound)
    with pytest.raises(BadValue, match="iterations must be at least 1"):
        rescale_(model, {}, F.cross_entropy, made, iterations=0)
    for few in ([], made[:1], iter(made)):
        with pytest.raises(BadValue, match="at least two batches"):
            rescale_(model, {}, F.cross_entropy, few, iterations=9)
    with pytest.raises(BadValue, match="matches no weight"):
        rescale_(model, {"wieght": torch.ones(2, 2).bool()}, F.cross_entropy, made)
    with pytest.raises(BadValue, match="no trainable parameters"):
        rescale_(nn.ReLU(), {}, F.cross_entropy, made)
    before = copy.deepcopy(model.state_dict())
    nan = [(x * float("nan"), y) for x, y in made]
    with pytest.raises(SparseflowError, match="left finite numbers at iteration 1"):
        rescale_(model, {}, F.cross_entropy, nan)
    assert all(torch.equal(a, before[name]) for name, a in model.state_dict().items())
