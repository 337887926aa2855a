"""`Sparse` in a user's own loop: everything that torch offers around a training step."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_avg_fn

from sparseflow import Sparse, compact
from sparseflow.core import BadValue, stand_ins, stream, weight_shapes
from sparseflow.masks import random_masks, uniform

STATES = ("state_dict", "load_state_dict")


def masks_of(model: nn.Module, density: float = 0.4) -> dict[str, Tensor]:
    shapes = weight_shapes(model)
    return random_masks(shapes, uniform(shapes, density), seed=3)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def batches(count: int, size: int = 8, features: int = 6) -> list[tuple[Tensor, Tensor]]:
    draw = stream(0, "batches")
    return [
        (torch.randn(size, features, generator=draw), torch.randint(3, (size,), generator=draw)) for _ in range(count)
    ]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def assert_kept(model: nn.Module, masks, gradients: bool = True) -> None:
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any(), name
        assert torch.isfinite(weight).all()
        assert weight[mask].any()
        assert not gradients or weight.grad is None or not weight.grad[~mask].any(), name


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Gradients ----------------------------------------------------------------------------------------------------------


def test_accumulated_gradients_are_masked_after_every_backward_pass():
    model, (first, second) = net(), batches(2)
    masks, plain = masks_of(model), net()
    plain.load_state_dict(model.state_dict())
    Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    Sparse(plain, masks, torch.optim.SGD(plain.parameters(), lr=0.1)).remove()
    for x, y in (first, second):
        for each in (model, plain):
            F.cross_entropy(each(x), y).backward()
        assert_kept(model, masks)
    for name, mask in masks.items():
        expected, found = plain.get_parameter(name).grad, model.get_parameter(name).grad
        assert expected[~mask].any(), "without hooks masked entries have gradients"
        assert torch.equal(found, expected.masked_fill(~mask, 0))


def test_gradients_are_masked_until_remove_whoever_holds_the_sparse():
    model, ((x, y),) = net(), batches(1)
    masks = masks_of(model)
    Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    gc.collect()
    F.cross_entropy(model(x), y).backward()
    assert_kept(model, masks)


def test_the_latest_sparse_of_a_weight_alone_masks_its_gradient():
    model, ((x, y),) = net(), batches(1)
    first = masks_of(model)
    flipped = {name: ~mask for name, mask in first.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    earlier = Sparse(model, first, optimizer)
    Sparse(model, flipped, torch.optim.SGD(model.parameters(), lr=0.1))
    for name in flipped:  # its own zeros, or no gradient reaches the first layer
        nn.init.ones_(model.get_parameter(name))
    F.cross_entropy(model(x), y).backward()
    for name, mask in flipped.items():
        gradient = model.get_parameter(name).grad
        assert not gradient[~mask].any()
        assert gradient[mask].any(), "the earlier mask counts no more"
    earlier.remove()  # takes away nothing but its own
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    assert all(not model.get_parameter(name).grad[~mask].any() for name, mask in flipped.items())


@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
def test_clipping_sees_masked_gradients(clip):
    model, ((x, y),) = net(), batches(1)
    masks = masks_of(model)
    Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    F.cross_entropy(model(x), y).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    total = clip(model.parameters(), 0.01)
    if clip is nn.utils.clip_grad_norm_:
        by_hand = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        torch.testing.assert_close(total, by_hand)
        scaled = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
        torch.testing.assert_close(scaled, torch.tensor(0.01), rtol=1e-4, atol=0)
    else:
        for p, g in zip(model.parameters(), gradients, strict=True):
            assert torch.equal(p.grad, g.clamp(-0.01, 0.01))
    assert_kept(model, masks)


def test_a_masked_infinity_does_not_spoil_the_norm():
    layer = nn.Linear(3, 2, bias=False)
    mask = torch.tensor([[True, False, True], [True, False, True]])
    Sparse(layer, {"weight": mask}, torch.optim.SGD(layer.parameters(), lr=0.1))
    layer.weight.grad = None
    # The weight's gradient is inf wherever the input is.
    x = torch.tensor([[1.0, torch.inf, 1.0]])
    (layer.weight * x).masked_fill(~mask, 0).sum().backward()
    (layer.weight[:, 1] * torch.inf).sum().backward()
    assert torch.isfinite(nn.utils.clip_grad_norm_(layer.parameters(), 1.0))


def test_gradients_by_autograd_grad_are_whole_and_those_by_hand_can_be_masked():
    model, ((x, y),) = net(), batches(1)
    masks = masks_of(model)
    sparse = Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    weights = [model.get_parameter(name) for name in masks]
    for weight, gradient in zip(weights, torch.autograd.grad(F.cross_entropy(model(x), y), weights), strict=True):
        weight.grad = gradient.clone()
    assert all(model.get_parameter(name).grad[~mask].any() for name, mask in masks.items())
    sparse.mask_gradients()
    assert_kept(model, masks)
    assert all(model.get_parameter(name).grad[mask].any() for name, mask in masks.items())


def test_gradients_that_are_differentiated_again():
    layer = nn.Linear(3, 2, bias=False)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    Sparse(layer, {"weight": mask}, torch.optim.SGD(layer.parameters(), lr=0.1))
    x = torch.ones(1, 3)
    with pytest.warns(UserWarning, match="create_graph"):
        layer(x).pow(3).sum().backward(create_graph=True)
    first = layer.weight.grad
    assert not first[~mask].any()
    assert first.requires_grad
    (second,) = torch.autograd.grad(first.sum(), layer.weight)
    assert second.any()
    layer.weight.grad = None


def test_a_sparse_gradient_is_refused_by_name():
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True))
    Sparse(model, masks_of(model), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(BadValue, match=r"0\.weight.*sparse=False"):
        model(torch.tensor([1, 2])).sum().backward()


# Precision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_bf16_autocast_with_a_gradient_scaler(fused):
    """A step that the scaler skips is not counted, also where a fused optimiser is called and skips it itself."""
    model = net()
    masks = masks_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    sparse = Sparse(model, masks, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    taken = 0
    for k, (x, y) in enumerate(batches(6)):
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x), y)
        bad = k in (0, 3)
        scaler.scale(loss * (torch.inf if bad else 1.0)).backward()
        if k % 2:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        taken += not bad
        assert same(model, before) == bad
        assert sparse.steps == taken
        assert_kept(model, masks, gradients=not bad)
        for name, mask in masks.items():
            state = optimizer.state[model.get_parameter(name)]
            assert all(not state[key][~mask].any() for key in ("exp_avg", "exp_avg_sq") if key in state)
    assert taken == 4


def test_an_infinity_at_a_masked_entry_skips_no_step():
    layer = nn.Linear(3, 2, bias=False)
    mask = torch.tensor([[True, False, True], [True, False, True]])
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    sparse = Sparse(layer, {"weight": mask}, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    weights = torch.tensor([[1.0, torch.inf, 1.0], [1.0, torch.inf, 1.0]])
    scaler.scale((layer.weight * weights).nan_to_num(0.0).sum() + (layer.weight[:, 1] * torch.inf).sum()).backward()
    scaler.step(optimizer)
    assert sparse.steps == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_weights_of_every_width(dtype):
    weight = nn.Parameter(torch.ones(4, 5, dtype=dtype))
    model = nn.ParameterList([weight])
    masks = masks_of(model)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    Sparse(model, masks, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        (weight * 0.5).abs().sum().backward()
        optimizer.step()
    assert_kept(model, masks)
    assert not optimizer.state[weight]["momentum_buffer"][~masks["0"]].any()


def test_a_width_that_has_no_bits_is_refused():
    model = nn.ParameterList([torch.ones(2, 3, dtype=torch.complex128)])
    with pytest.raises(BadValue, match="complex128"):
        Sparse(model, masks_of(model), torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(
    "move", [lambda m: m.double(), lambda m: m.to(memory_format=torch.channels_last)], ids=["double", "channels-last"]
)
def test_a_model_that_moves_afterwards_takes_its_masks_along(move):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    masks = masks_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = Sparse(model, masks, optimizer)
    move(model)
    for one in sparse._kept.values():  # else masking would still be right, but several times slower
        assert one.bits().stride() == one.weight.stride()
        assert one.bits().element_size() == one.weight.element_size()
    for _ in range(2):
        step(model, optimizer, torch.randn(2, 3, 4, 4, dtype=model[0].weight.dtype), torch.tensor([0, 1]))
        assert_kept(model, masks)


def test_masks_on_another_device_are_moved():
    model = net()
    masks = masks_of(model)

    class Elsewhere(torch.Tensor):
        """A mask whose `to` is seen."""

        asked: list = []  # noqa: RUF012

        def to(self, device):
            self.asked.append(device)
            return torch.Tensor.to(self.as_subclass(torch.Tensor), device)

    sparse = Sparse(model, {name: mask.as_subclass(Elsewhere) for name, mask in masks.items()}, optimizer_of(model))
    assert Elsewhere.asked == [model[0].weight.device] * 2
    assert all(type(mask) is Tensor for mask in sparse.masks.values())


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


# Around the step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
    ],
    ids=["step", "one-cycle", "cosine"],
)
@pytest.mark.parametrize("first", ["sparse", "scheduler"])
def test_schedules_of_the_learning_rate(make, first):
    """Made before or after; Rprop's step size is given back as the rate of the moment."""
    model = net()
    masks = masks_of(model)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    if make(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)).__class__.__name__ == "OneCycleLR":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    parts = {"sparse": lambda: Sparse(model, masks, optimizer), "scheduler": lambda: make(optimizer)}
    made = {name: parts[name]() for name in sorted(parts, key=lambda name: name != first)}
    for k, (x, y) in enumerate(batches(4)):
        step(model, optimizer, x, y)
        assert_kept(model, masks)
        assert made["sparse"].steps == k + 1
        if isinstance(optimizer, torch.optim.Rprop):
            for name, mask in masks.items():
                found = optimizer.state[model.get_parameter(name)]["step_size"][~mask]
                assert torch.equal(found, torch.full_like(found, optimizer.param_groups[0]["lr"]))
        made["scheduler"].step()
    assert optimizer.param_groups[0]["lr"] != 0.01


@pytest.mark.parametrize("how", ["swa", "ema", "default"])
@pytest.mark.parametrize("compacted", [False, True], ids=["masked", "compact"])
def test_averaged_copies_stay_sparse(how, compacted):
    model = net()
    masks = masks_of(model)
    if compacted:
        compact(model, masks)
    optimizer = optimizer_of(model)
    Sparse(model, masks, optimizer)
    settings = {"swa": {"avg_fn": get_swa_avg_fn()}, "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, "default": {}}
    average = AveragedModel(model, **settings[how])
    for x, y in batches(5):
        step(model, optimizer, x, y)
        average.update_parameters(model)
    state = average.module.state_dict()
    for name, mask in masks.items():
        assert not state[name][~mask].any()
        assert state[name][mask].any()
        assert not torch.equal(state[name], model.state_dict()[name])


# torch's own, when it imports its compiler.
COMPILES = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")


@COMPILES
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["model", "step", "both"])
def test_compiled_models_and_steps(what, backend):
    """Through `torch.compile` of the model, of the optimiser's step, and of a whole training step."""
    torch._dynamo.reset()
    model, plain = net(), net()
    masks = masks_of(model)
    optimizers = [optimizer_of(each) for each in (model, plain)]
    sparse = Sparse(model, masks, optimizers[0])
    Sparse(plain, masks, optimizers[1])
    forward = torch.compile(model, backend=backend) if what == "model" else model
    update = torch.compile(optimizers[0].step, backend=backend) if what == "step" else optimizers[0].step

    def whole(x: Tensor, y: Tensor) -> None:
        optimizers[0].zero_grad()
        F.cross_entropy(forward(x), y).backward()
        update()

    run = torch.compile(whole, backend=backend) if what == "both" else whole
    for k, (x, y) in enumerate(batches(3)):
        run(x, y)
        step(plain, optimizers[1], x, y)
        assert sparse.steps == k + 1
        assert model[0].weight.grad.any()
        assert_kept(model, masks)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    torch._dynamo.reset()


# State --------------------------------------------------------------------------------------------------------------


def test_a_state_that_is_none_of_sparse_is_refused_and_changes_nothing():
    model = net()
    masks = masks_of(model)
    sparse = Sparse(model, masks, optimizer_of(model))
    state = sparse.state_dict()
    bad = {name: torch.ones(2, 2, dtype=torch.bool) for name in masks}
    for wrong, words in (
        ({"masks": masks}, "masks and steps, got masks"),
        ({}, "got nothing"),
        ({"masks": {}, "steps": 1}, "other weights.*0.weight, 2.weight"),
        ({"masks": {**masks, "0.bias": masks["0.weight"]}, "steps": 1}, "0.bias on one side"),
        ({"masks": bad, "steps": 1}, "has shape"),
    ):
        with pytest.raises(BadValue, match=words):
            sparse.load_state_dict(wrong)
        assert sparse.steps == 0
        step(model, sparse.optimizer, *batches(1)[0])
        assert_kept(model, masks)
        sparse.steps = 0
    sparse.load_state_dict(state)


def test_state_of_a_model_with_compact_layers():
    model = net()
    masks = masks_of(model)
    compact(model, masks, only=["0.weight"])
    sparse = Sparse(model, masks, optimizer_of(model))
    state = copy.deepcopy(sparse.state_dict())
    assert state["masks"].keys() == masks.keys()
    assert all(torch.equal(state["masks"][name], mask) for name, mask in masks.items())
    sparse.load_state_dict(state)
    state["masks"]["0.weight"] = ~masks["0.weight"]
    sparse.load_state_dict(state)
    assert model[0].has_mask(~masks["0.weight"])
    assert not model[0].values.any()


def test_masks_from_a_state_are_those_that_hold():
    model = net()
    masks = masks_of(model)
    others = {name: mask.flip(0).contiguous() for name, mask in masks.items()}
    assert not torch.equal(others["0.weight"], masks["0.weight"])
    sparse = Sparse(model, masks, optimizer_of(model))
    sparse.load_state_dict({"masks": others, "steps": 7})
    with torch.no_grad():
        for name in masks:
            model.get_parameter(name).fill_(1.0)
    step(model, sparse.optimizer, *batches(1)[0])
    assert sparse.steps == 8
    assert_kept(model, others)
    assert model[0].weight[others["0.weight"]].all()
    assert model[0].weight.grad[others["0.weight"]].any()


def test_weights_loaded_after_sparse_was_made_are_cleared_by_the_next_step_or_enforce():
    dense = net()
    for clear in ("step", "enforce"):
        model = net()
        masks = masks_of(model)
        sparse = Sparse(model, masks, optimizer_of(model))
        model.load_state_dict(dense.state_dict())
        assert model[0].weight[~masks["0.weight"]].all()
        sparse.enforce() if clear == "enforce" else step(model, sparse.optimizer, *batches(1)[0])
        assert_kept(model, masks)


# Copies -------------------------------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}
COPIED_OPTIMIZERS = {
    "SGD": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "Adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "Adam-fused": lambda ps: torch.optim.Adam(ps, lr=0.01, fused=True),
    "LBFGS": lambda ps: torch.optim.LBFGS(ps, lr=0.1),  # has attributes that torch's own copies lack
    "Rprop": lambda ps: torch.optim.Rprop(ps),
}


def closed_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("make", COPIED_OPTIMIZERS.values(), ids=COPIED_OPTIMIZERS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("compacted", [False, True], ids=["masked", "half-compact"])
def test_a_copy_brings_its_own_model_optimiser_and_hooks(copied, make, compacted):
    model = net()
    masks = masks_of(model)
    if compacted:
        compact(model, masks, only=["0.weight"])
    optimizer = make(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)  # replaces optimizer.step by its own wrapper
    sparse = Sparse(model, masks, optimizer)
    data = batches(6)
    for x, y in data[:3]:
        closed_step(model, optimizer, x, y)
    schedule.step()
    twin = copied(sparse)
    assert twin.model is not model
    assert twin.optimizer is not optimizer
    assert vars(twin.optimizer).keys() >= {k for k in vars(optimizer) if k.startswith("_") and "hook" not in k}
    assert {id(p) for g in twin.optimizer.param_groups for p in g["params"]} == {id(p) for p in twin.model.parameters()}
    assert twin.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert (twin.steps, repr(twin)) == (3, repr(sparse))
    before = copy.deepcopy(model.state_dict())
    for x, y in data[3:]:
        closed_step(twin.model, twin.optimizer, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (twin.steps, sparse.steps) == (6, 3)
    for x, y in data[3:]:
        closed_step(model, optimizer, x, y)
    assert same(twin.model, model)
    for name, mask in masks.items():
        assert not twin.model.state_dict()[name][~mask].any()
    sparse.remove()
    twin.model.zero_grad()
    F.cross_entropy(twin.model(data[0][0]), data[0][1]).backward()
    assert not twin.model[2].weight.grad[~masks["2.weight"]].any()
    assert twin.model[2].weight.grad.any()


def test_a_copy_within_a_larger_copy_is_of_the_copied_model():
    for order in (("sparse", "model", "optimizer"), ("model", "optimizer", "sparse")):
        model = net()
        masks = masks_of(model)
        sparse = Sparse(model, masks, optimizer_of(model))
        parts = {"sparse": sparse, "model": model, "optimizer": sparse.optimizer}
        twins = copy.deepcopy({name: parts[name] for name in order})
        assert twins["sparse"].model is twins["model"]
        assert twins["sparse"].optimizer is twins["optimizer"]
        step(twins["model"], twins["optimizer"], *batches(1)[0])
        assert twins["sparse"].steps == 1
        assert_kept(twins["model"], masks)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_bare_model_is_copied_without_hooks(copied):
    """As documented: Sparse is to be copied, not the model that it keeps."""
    model = net()
    masks = masks_of(model)
    sparse = Sparse(model, masks, optimizer_of(model))
    twin = copied(model)
    assert same(twin, model)
    step(twin, optimizer_of(twin), *batches(1)[0])
    assert twin[0].weight[~masks["0.weight"]].any()
    assert sparse.steps == 0
    assert_kept(model, masks)


def test_a_removed_sparse_is_copied_as_such():
    model = net()
    masks = masks_of(model)
    sparse = Sparse(model, masks, optimizer_of(model))
    sparse.remove()
    twin = copy.deepcopy(sparse)
    step(twin.model, twin.optimizer, *batches(1)[0])
    assert twin.steps == 0
    assert twin.model[0].weight[~masks["0.weight"]].any()


# Which weights, which optimiser -------------------------------------------------------------------------------------


def test_a_parameter_group_that_is_added_later():
    model = net()
    masks = masks_of(model)
    optimizer = torch.optim.Rprop(model[0].parameters(), lr=0.1)
    model[2].requires_grad_(False)
    Sparse(model, masks, optimizer)
    step(model, optimizer, *batches(1)[0])
    model[2].requires_grad_(True)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.5})
    for x, y in batches(3):
        step(model, optimizer, x, y)
        assert_kept(model, masks)
    for name, rate in (("0.weight", 0.1), ("2.weight", 0.5)):
        sizes = optimizer.state[model.get_parameter(name)]["step_size"]
        assert torch.equal(sizes[~masks[name]], torch.full_like(sizes, rate)[~masks[name]])
    assert model[2].weight.grad.any()


def test_frozen_weights_are_set_to_0_once_and_masked_when_they_thaw():
    model = net()
    masks = masks_of(model)
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Sparse(model, masks, optimizer)
    before = model[0].weight.clone()
    assert not model[0].weight.requires_grad
    step(model, optimizer, *batches(1)[0])
    assert torch.equal(model[0].weight, before)
    assert_kept(model, masks)
    model[0].requires_grad_(True)
    step(model, optimizer, *batches(1)[0])
    assert model[0].weight.grad.any()
    assert_kept(model, masks)
    assert not torch.equal(model[0].weight, before)


def test_two_optimisers_have_a_sparse_each():
    model = net()
    masks = masks_of(model)
    muon = torch.optim.Muon([model[0].weight], lr=0.1)
    adam = torch.optim.Adam([*model[2].parameters(), model[0].bias], lr=0.01)
    with pytest.raises(BadValue, match=r"does not hold 2\.weight; give its mask to a Sparse of the one that does"):
        Sparse(model, masks, muon)
    kept = [Sparse(model, {f"{k}.weight": masks[f"{k}.weight"]}, o) for k, o in ((0, muon), (2, adam))]
    for x, y in batches(3):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        assert_kept(model, masks)
        muon.step()
        adam.step()
        assert_kept(model, masks)
    assert [one.steps for one in kept] == [3, 3]


def test_an_optimiser_made_before_compact_is_noticed():
    model = net()
    masks = masks_of(model)
    optimizer = optimizer_of(model)
    compact(model, masks)
    with pytest.raises(BadValue, match=r"0\.weight: make it after compact\(\)"):
        Sparse(model, masks, optimizer)
    Sparse(model, masks, optimizer_of(model))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.embedding(x))


def test_tied_weights_have_one_mask():
    mask = masks_of(Tied())["embedding.weight"]
    other = mask.clone()
    other[0, 0] ^= True
    for masks in (
        {"embedding.weight": mask},
        {"output.weight": mask},
        {"embedding.weight": mask, "output.weight": mask.clone()},
    ):
        model = Tied()
        optimizer = optimizer_of(model)
        sparse = Sparse(model, masks, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.tensor([1, 2, 3])), torch.tensor([2, 3, 4])).backward()
            optimizer.step()
            assert_kept(model, {"embedding.weight": mask})
        assert sparse.density() == int(mask.sum()) / 28
    with pytest.raises(BadValue, match=r"embedding\.weight and output\.weight are one shared weight"):
        Sparse(model, {"embedding.weight": mask, "output.weight": other}, optimizer)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"0.weight": torch.ones(6, 8, dtype=torch.bool)}, r"shape \(6, 8\), its weight \(8, 6\)"),
        ({"0.weight": torch.ones(8, 6)}, "bool"),
        ({"1.weight": torch.ones(8, 6, dtype=torch.bool)}, r"it has: 0\.weight, 2\.weight"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, words):
    model = net()
    with pytest.raises(BadValue, match=words):
        Sparse(model, masks, optimizer_of(model))
    step(model, optimizer_of(model), *batches(1)[0])
    assert not model[0].weight.eq(0).any(), "nothing was hooked"


# Every kind of layer ------------------------------------------------------------------------------------------------


class Listed(nn.Module):
    """Weights in a ParameterList, a ParameterDict, a ModuleList of Sequentials, and of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.many = nn.ParameterList([torch.randn(6, 6) for _ in range(2)])
        self.named = nn.ParameterDict({"a": torch.randn(6, 6)})
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2)])
        self.own = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        for weight in [*self.many, *self.named.values()]:
            x = torch.tanh(x @ weight)
        for stage in self.stages:
            x = stage(x)
        return x @ self.own


class Recurrent(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        more = {"proj_size": 5} if kind is nn.LSTM else {}
        self.cells = kind(6, 8, num_layers=2, bidirectional=True, batch_first=True, **more)
        self.head = nn.Linear(2 * more.get("proj_size", 8), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x)).mean(1))


LAYERS = {
    "lists": (Listed, (4, 6)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (4, 7, 6)),
    "GRU": (lambda: Recurrent(nn.GRU), (4, 7, 6)),
    "RNN": (lambda: Recurrent(nn.RNN), (4, 7, 6)),
    "transformer": (Sequence, None),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, groups=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (4, 2, 5, 5),
    ),
    "convolutions": (
        lambda: nn.Sequential(
            OrderedDict(a=nn.Conv2d(4, 4, 3, groups=2), b=nn.Conv2d(4, 3, 1), p=nn.AdaptiveAvgPool2d(1), f=nn.Flatten())
        ),
        (4, 4, 5, 5),
    ),
    "one-dimensional": (
        lambda: nn.Sequential(nn.Conv1d(4, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        (4, 4, 5),
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch says which kernel it takes
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_every_kind_of_layer(make, shape):
    torch.manual_seed(0)
    model = make()
    masks = masks_of(model, 0.5)
    assert len(masks) == sum(p.dim() >= 2 for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    Sparse(model, masks, optimizer)
    x = torch.randint(11, (4, 7)) if shape is None else torch.randn(shape)
    for _ in range(3):
        step(model, optimizer, x, torch.tensor([0, 1, 2, 0]))
        assert_kept(model, masks)
        for name in masks:
            assert model.get_parameter(name).grad is not None, name


def test_attention_takes_its_fast_path_with_the_same_zeros():
    """Evaluation runs one fused kernel over the weights themselves; slow and fast agree, and so does a plain model."""
    torch.manual_seed(0)
    model = Sequence()
    masks = masks_of(model, 0.5)
    assert "encoder.layers.0.self_attn.in_proj_weight" in masks
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Sparse(model, masks, optimizer)
    x = torch.randint(11, (4, 7))
    step(model, optimizer, x, torch.tensor([0, 1, 2, 0]))
    plain = Sequence()
    plain.load_state_dict(model.state_dict())
    model.eval()
    plain.eval()
    calls = []
    inside = torch._transformer_encoder_layer_fwd
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a, **k: calls.append(1) or inside(*a, **k))
        with torch.no_grad():
            fast, of_plain = model(x), plain(x)
    assert len(calls) == 4
    assert torch.equal(fast, of_plain)
    torch.testing.assert_close(fast, model(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Recurrent(nn.LSTM), "LSTM.weight_ih_l0 has no compact form"),
    (lambda: Recurrent(nn.GRU), "GRU.weight_hh_l1_reverse has no compact form"),
    (Sequence, "TransformerEncoderLayer reads its weight"),
    (Sequence, "MultiheadAttention.in_proj_weight has no compact form"),
    (Sequence, "Embedding.weight has no compact form"),
])  # fmt: skip
def test_compact_lists_what_stays_masked_with_reasons(make, words):
    model = make()
    masks = masks_of(model, 0.5)
    done = compact(model, masks)
    assert done.compacted == ("head.weight",)
    assert done.left_masked.keys() == masks.keys() - {"head.weight"}
    assert words in done.left_masked.values()


def test_a_half_compact_transformer_trains():
    torch.manual_seed(0)
    model = Sequence()
    masks = masks_of(model, 0.5)
    plain = Sequence()
    plain.load_state_dict(model.state_dict())
    compact(model, masks)
    assert len(stand_ins(model)) == 1
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, plain)]
    Sparse(model, masks, optimizers[0])
    Sparse(plain, masks, optimizers[1])
    x = torch.randint(11, (4, 7), generator=stream(0))
    for each, optimizer in zip((model, plain), optimizers, strict=True):
        for _ in range(3):
            step(each, optimizer, x, torch.tensor([0, 1, 2, 0]))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


# The end ------------------------------------------------------------------------------------------------------------


def test_remove_leaves_an_ordinary_model():
    model, ((x, y),) = net(), batches(1)
    masks, keys = masks_of(model), list(model.state_dict())
    optimizer = optimizer_of(model)
    with Sparse(model, masks, optimizer) as sparse:
        step(model, optimizer, x, y)
        assert_kept(model, masks)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]
    for p in model.parameters():
        assert not p._post_accumulate_grad_hooks
        assert not p._backward_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert_kept(model, masks)
    density = sparse.density()
    step(model, optimizer, x, y)
    assert model[0].weight[~masks["0.weight"]].any()
    assert sparse.steps == 1
    assert sparse.remove() is model
    assert sparse.density() == density


def test_hooks_of_an_optimiser_that_mixes_entries_are_removed_too():
    model = net()
    optimizer = torch.optim.Adafactor(model.parameters())
    Sparse(model, masks_of(model), optimizer).remove()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_sparse_goes_with_its_optimiser():
    model = net()
    optimizer = optimizer_of(model)
    there = weakref.ref(Sparse(model, masks_of(model), optimizer))
    gc.collect()
    assert there() is not None
    del optimizer, model
    gc.collect()
    assert there() is None


def test_what_it_says_of_itself():
    model = net()
    masks = masks_of(model)
    compact(model, masks, only=["2.weight"])
    sparse = Sparse(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))
    active = sum(int(mask.sum()) for mask in masks.values())
    assert sparse.density() == active / 72
    sparse.steps = 1234
    assert repr(sparse) == (
        f"Sparse(2 weights, 1 of them compact; {active} of 72 active, density {active / 72:.4g}; SGD, 1,234 steps)"
    )
    nothing = Sparse(model, {}, torch.optim.SGD(model.parameters(), lr=0.1))
    assert nothing.density() != nothing.density()
    assert "0 of 0 active" in repr(nothing)
    assert set(sparse.masks) == set(masks)


# Compact models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_compact_models_load_dense_state(strict, assign):
    """A plain model's checkpoint, into the same computation; entries that the mask forbids are an error, never cut."""
    model, ((x, y),) = net(), batches(1)
    masks = masks_of(model)
    trained = net()
    Sparse(trained, masks, optimizer_of(trained))
    step(trained, optimizer_of(trained), x, y)  # an optimiser that Sparse does not know
    dirty = {name: value.clone() for name, value in trained.state_dict().items()}
    assert dirty["0.weight"][~masks["0.weight"]].eq(0).all()
    dirty["0.weight"][~masks["0.weight"]] = 1.0
    compact(model, masks)
    assert model.state_dict().keys() == dirty.keys()
    found = model.load_state_dict(trained.state_dict(), strict=strict, assign=assign)
    assert found == ([], [])
    assert all(type(p) is nn.Parameter and p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(x), trained(x))
    assert same(model, trained)
    with pytest.raises(RuntimeError, match="multiply it by the mask"):
        model.load_state_dict(dirty, strict=strict, assign=assign)
    assert same(model, trained)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    Sparse(model, masks, optimizer)
    step(model, optimizer, x, y)
    assert not same(model, trained)


@COMPILES
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compact_model_trains_compiled(backend):
    torch._dynamo.reset()
    model, plain = net(), net()
    masks = masks_of(model)
    compact(model, masks)
    optimizers = [optimizer_of(each) for each in (model, plain)]
    Sparse(model, masks, optimizers[0])
    Sparse(plain, masks, optimizers[1])
    compiled = torch.compile(model, backend=backend)
    for x, y in batches(3):
        step(compiled, optimizers[0], x, y)
        step(plain, optimizers[1], x, y)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    torch._dynamo.reset()
