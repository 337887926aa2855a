"""The perceptron against a functional one written here, the measuring points, and arithmetic counted by hand."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, UnknownName, other_parameters, weight_shapes
from sparseflow.masks import random_masks
from sparseflow.models import MLP, SReLU, activations
from sparseflow.sparse import compact
from sparseflow.train import forward_flops, measuring_steps


def apply(name: str, z: Tensor, p: dict[str, Tensor]) -> Tensor:
    """Each activation by its formula; p holds its parameters."""
    if name == "relu":
        return z.clamp(min=0)
    if name == "relu6":
        return z.clamp(min=0, max=6)
    if name == "prelu":
        return torch.where(z > 0, z, p["weight"] * z)
    if name == "elu":
        return torch.where(z > 0, z, z.exp() - 1)
    if name == "swish":
        return z / (1 + (-z).exp())
    if name == "mish":
        return z * torch.tanh((1 + z.exp()).log())
    if name == "pswish":
        return z / (1 + (-p["beta"] * z).exp())
    if name == "sigmoid":
        return 1 / (1 + (-z).exp())
    assert name == "srelu"
    middle = (z > p["t_l"]) & (z < p["t_r"])
    outer = torch.where(z >= p["t_r"], p["t_r"] + p["a_r"] * (z - p["t_r"]), p["t_l"] + p["a_l"] * (z - p["t_l"]))
    return torch.where(middle, z, outer)


def by_definition(model: MLP, x: Tensor, *, activation: str, norm: str, affine: bool, skip: bool) -> Tensor:
    """Layer order linear, normalisation, activation; the output of hidden layer k joins the pre-activation of k + 2.

    Written with the outputs of all hidden layers at hand, numbered from 1 as in 001 sec. 3.3.2.
    """
    state = dict(model.named_parameters())
    outputs = {0: x.reshape(len(x), -1)}
    depth = len(model.linears)
    for k in range(1, depth + 1):
        z = outputs[k - 1] @ state[f"linears.{k - 1}.weight"].t()
        if norm != "none":
            axis = {"batch": 0, "layer": 1}[norm]
            z = (z - z.mean(axis, keepdim=True)) / (z.var(axis, correction=0, keepdim=True) + 1e-5).sqrt()
            if affine:
                z = z * state[f"norms.{k - 1}.weight"] + state[f"norms.{k - 1}.bias"]
        if skip and k >= 3 and (k - 2) % 2 == 1:
            z = z + outputs[k - 2]
        own = {key.rpartition(".")[2]: p for key, p in state.items() if key.startswith(f"activations.{k - 1}.")}
        outputs[k] = apply(activation, z, own)
    return outputs[depth] @ state["output.weight"].t()


def filled(**options) -> MLP:
    model = MLP((2, 3, 1), 4, width=7, **options).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            draw = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(draw * 0.7 if p.dim() >= 2 else p + 0.1 * draw)
    return model


def inputs(n: int = 11) -> Tensor:
    return torch.randn(n, 2, 3, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("norm", "affine"), [("none", True), ("batch", True), ("batch", False), ("layer", True)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 7])
def test_forward(depth, norm, affine, skip):
    if skip and depth < 3:
        pytest.skip("no two layers to span")
    model = filled(depth=depth, norm=norm, norm_affine=affine, skip=skip)
    expected = by_definition(model, inputs(), activation="relu", norm=norm, affine=affine, skip=skip)
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-10, atol=1e-12)
    if skip:
        other = by_definition(model, inputs(), activation="relu", norm=norm, affine=affine, skip=False)
        assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("activation", activations.names)
def test_forward_with_every_activation(activation):
    model = filled(depth=5, norm="batch", skip=True, activation=activation)
    expected = by_definition(model, inputs(), activation=activation, norm="batch", affine=True, skip=True)
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-10, atol=1e-12)


def test_skips_start_at_odd_layers_only():
    """With zero weights in hidden layer 3, its output is that of layer 1; layer 4 gets nothing from layer 2."""
    model = filled(depth=4, skip=True)
    with torch.no_grad():
        model.linears[2].weight.zero_()
        model.linears[3].weight.copy_(torch.eye(7))
        model.output.weight.copy_(torch.eye(7)[:4])
    first = (inputs().flatten(1) @ model.linears[0].weight.t()).relu()
    torch.testing.assert_close(model(inputs()), first[:, :4])


def test_batch_norm_uses_running_statistics_in_evaluation():
    model = filled(depth=2, norm="batch")
    for _ in range(400):
        model(inputs())
    with torch.no_grad():
        batch = model(inputs(11))
        model.eval()
        # The running variance is the unbiased one, so only roughly the same.
        assert (model(inputs()) - batch).abs().max() < 0.2 * batch.abs().max()
        torch.testing.assert_close(model(inputs())[:1], model(inputs()[:1]))


def test_dropout_drops_hidden_outputs_while_training_only():
    """Sigmoid outputs are never 0, so every zero is a dropped one; the rest is scaled to keep the mean."""
    model = filled(depth=3, dropout=0.25, activation="sigmoid")
    plain = filled(depth=3, activation="sigmoid")
    model.eval()
    assert torch.equal(model(inputs()), plain(inputs()))
    model.train()
    seen = []
    handles = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for layer in model.linears]
    handles.append(model.output.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(inputs(1500))
    for handle in handles:
        handle.remove()
    assert seen[0].all()
    for hidden in seen[1:]:
        # 10,500 draws: a deviation of 0.0042.
        assert float((hidden == 0).double().mean()) == pytest.approx(0.25, abs=0.02)
        assert hidden.max() < 1 / 0.75


def test_weights_are_named_and_there_are_no_biases():
    model = MLP((3, 4, 4), 10, depth=3, width=20, norm="batch", activation="prelu")
    assert {name: tuple(s) for name, s in weight_shapes(model).items()} == {
        "linears.0.weight": (20, 48),
        "linears.1.weight": (20, 20),
        "linears.2.weight": (20, 20),
        "output.weight": (10, 20),
    }
    assert list(weight_shapes(model))[-1] == "output.weight"
    assert not any(layer.bias is not None for layer in [*model.linears, model.output])
    assert len(other_parameters(model)) == 3 * 2 + 3


@pytest.mark.parametrize(
    "options",
    [{"depth": 0}, {"width": 0}, {"skip": True, "depth": 2}, {"dropout": 1.0}, {"dropout": -0.1}, {"norm": "group"}],
)
def test_impossible_networks_are_refused(options):
    with pytest.raises(BadValue):
        MLP((6,), 4, **options)


def test_unknown_activation_is_named():
    with pytest.raises(UnknownName, match="relu"):
        MLP((6,), 4, activation="relo")


# Activations ---------------------------------------------------------------------------------------------------------


def test_srelu_by_hand():
    """t_l = -1, a_l = 0.1, t_r = 2, a_r = 3."""
    f = SReLU()
    with torch.no_grad():
        for p, value in ((f.t_l, -1.0), (f.a_l, 0.1), (f.t_r, 2.0), (f.a_r, 3.0)):
            p.fill_(value)
    x = torch.tensor([-11.0, -2.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0, 12.0])
    torch.testing.assert_close(f(x), torch.tensor([-2.0, -1.1, -1.0, -0.5, 0.0, 1.0, 2.0, 5.0, 32.0]))


def test_srelu_starts_as_a_leaky_relu():
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(SReLU()(x), F.leaky_relu(x, 0.2))


def test_srelu_gradients_by_hand():
    """df/dt_r = 1 - a_r and df/da_r = x - t_r above the right kink; likewise below the left one."""
    f = SReLU()
    with torch.no_grad():
        for p, value in ((f.t_l, -1.0), (f.a_l, 0.25), (f.t_r, 2.0), (f.a_r, 3.0)):
            p.fill_(value)
    f(torch.tensor([5.0, 4.0, 0.0, -3.0])).sum().backward()
    assert [float(p.grad) for p in (f.t_l, f.a_l, f.t_r, f.a_r)] == [0.75, -2.0, 2 * (1 - 3.0), 3.0 + 2.0]


def test_prelu_has_one_slope_per_layer():
    model = MLP((6,), 4, depth=3, width=50, activation="prelu")
    slopes = [a.weight for a in model.activations]
    assert [s.numel() for s in slopes] == [1, 1, 1]
    assert [s.item() for s in slopes] == [0.25] * 3
    model(torch.randn(9, 6)).square().sum().backward()
    assert len({s.grad.item() for s in slopes}) == 3


# Measuring points ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 12, 391, 469])
@pytest.mark.parametrize("epochs", [1000, 500])
def test_papers_measure_at_the_end_of_epoch_0_and_of_each_tenth(epochs, steps):
    """000 sec. 2.2: epochs 0, 99, 199, ..., 999 of 1000; epoch e ends after (e + 1) x steps."""
    ends = [0, *range(epochs // 10 - 1, epochs, epochs // 10)]
    assert measuring_steps(epochs, steps) == [(epoch + 1) * steps for epoch in ends]
    assert len(ends) == 11


def test_short_trainings_use_fractional_epochs():
    """3 epochs of 100 steps: tenths are 30 steps; the first epoch ends after the first of them, so half of that."""
    assert measuring_steps(3, 100) == [15, 30, 60, 90, 120, 150, 180, 210, 240, 270, 300]
    # 5 epochs of 12 steps.
    assert measuring_steps(5, 12) == [3, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60]
    # Tenths that fall between steps are measured at the next one.
    assert measuring_steps(3, 5) == [1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15]


def test_points_are_eleven_distinct_increasing_steps_wherever_there_are_enough():
    for epochs, steps in product(range(1, 60), (1, 2, 3, 7, 11, 12, 50)):
        found = measuring_steps(epochs, steps)
        assert all(a < b for a, b in pairwise(found))
        assert found[0] >= 1
        assert found[-1] == epochs * steps
        assert all(isinstance(step, int) for step in found)
        if epochs * steps >= 20:
            assert len(found) == 11, (epochs, steps)
        else:
            assert len(found) <= 11
        if epochs > 10:
            assert found[0] == steps


def test_other_numbers_of_points():
    assert measuring_steps(10, 5, 0) == []
    assert measuring_steps(10, 5, 1) == [50]
    assert measuring_steps(10, 5, 2) == [5, 50]
    assert measuring_steps(10, 5, 3) == [5, 25, 50]
    assert measuring_steps(1, 1) == [1]
    for points in range(2, 30):
        assert len(measuring_steps(100, 10, points)) == points


# Arithmetic ----------------------------------------------------------------------------------------------------------


def test_flops_of_a_perceptron():
    """2 x active weights: one multiplication and one addition each."""
    model = MLP((1, 8, 8), 10, depth=3, width=68, norm="batch", skip=True)
    example = torch.zeros(1, 1, 8, 8)
    assert forward_flops(model, {}, example) == 2 * (64 * 68 + 2 * 68**2 + 68 * 10)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, dict(zip(shapes, (64 * 7, 49, 49, 70), strict=True)), 0)
    twin = MLP((1, 8, 8), 10, depth=3, width=7)
    assert forward_flops(model, masks, example) == 2 * (64 * 7 + 49 + 49 + 70) == forward_flops(twin, {}, example)
    assert forward_flops(compact(model, masks).model, masks, example) == 2 * (64 * 7 + 49 + 49 + 70)
    assert forward_flops(model, {}, example) == 2 * (64 * 7 + 49 + 49 + 70)


def test_flops_of_convolutions_by_hand():
    """A convolution uses each weight once per output position.

    Input 3 x 8 x 8. Conv 3 -> 4, 3 x 3, padding 1: 8 x 8 outputs, 108 weights. Conv 4 -> 6, 3 x 3, stride 2: 3 x 3
    outputs, 216 weights. Grouped conv 6 -> 6 in 3 groups, 1 x 1: 9 outputs, 12 weights. Linear 54 -> 5: 270 weights.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.Conv2d(6, 6, 1, groups=3),
        nn.Flatten(),
        nn.Linear(54, 5),
    )
    example = torch.zeros(1, 3, 8, 8)
    assert forward_flops(model, {}, example) == 2 * (108 * 64 + 216 * 9 + 12 * 9 + 270)
    masks = random_masks(weight_shapes(model), {"0.weight": 11, "5.weight": 30}, 0)
    assert forward_flops(model, masks, example) == 2 * (11 * 64 + 216 * 9 + 12 * 9 + 30)


def test_flops_of_a_transposed_convolution_by_hand():
    """It uses each weight once per *input* position: 2 -> 3, 2 x 2, stride 2, on 4 x 4 inputs, 24 weights x 16."""
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2, stride=2))
    assert forward_flops(model, {}, torch.zeros(1, 2, 4, 4)) == 2 * 24 * 16


def test_flops_count_each_use():
    """A linear layer on a sequence of 7 is used 7 times; a layer that is called twice counts twice."""
    assert forward_flops(nn.Sequential(nn.Linear(3, 4)), {}, torch.zeros(1, 7, 3)) == 2 * 12 * 7
    layer = nn.Linear(4, 4)
    assert forward_flops(nn.Sequential(layer, nn.ReLU(), layer), {}, torch.zeros(1, 4)) == 2 * 16 * 2
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert forward_flops(tied, {}, torch.zeros(1, 4)) == 2 * 16 * 2


def test_flops_of_a_parametrised_layer():
    """The layer multiplies by a weight of its shape, whatever that is computed from."""
    model = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)))
    assert forward_flops(model, {}, torch.zeros(1, 4)) == 2 * 16


def test_counting_leaves_the_model_as_it_was():
    model = MLP((6,), 3, depth=2, width=5, norm="batch", dropout=0.4)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    forward_flops(model, {}, torch.randn(1, 6, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
