"""Every model of the catalog x what must always hold; a new entry is tested here without an edit."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import (
    BadValue,
    Masks,
    active_counts,
    check_masks,
    other_parameters,
    stand_ins,
    stream,
    weight_shapes,
    weight_values,
)
from sparseflow.init import draw_active_
from sparseflow.masks import matching_rules, random_masks, uniform
from sparseflow.models import activations, materialise, models, sketch
from sparseflow.sparse import compact
from sparseflow.study.build import stacks
from sparseflow.study.read import validate
from sparseflow.study.sections import ModelSpec
from sparseflow.study.spec import RunSpec
from sparseflow.train import forward_flops

NARROW = 6
"""A width at which every network is small enough to compute with; at their own they are only sketched."""

every_model = pytest.mark.parametrize("name", models.names)


def options_of(name: str) -> dict[str, Any]:
    return dict(models.entry(name).facts["options"])


def example_of(name: str) -> tuple[int, ...]:
    shape: tuple[int, ...] = models.entry(name).facts["example"]
    return shape


def drawn(name: str, masks: Masks | None = None, seed: int = 1, **options: Any) -> nn.Module:
    """A narrow network with weights, in float64."""
    model = materialise(sketch(name, example_of(name), 5, **{"width": NARROW, **options}), dtype=torch.float64)
    draw_active_(model, masks or {}, seed=seed)
    return model


def images(name: str, batch: int = 4) -> Tensor:
    return torch.randn((batch, *example_of(name)), generator=stream(0, "images"), dtype=torch.float64)


@cache
def random_masks_of(name: str, density: float = 0.4) -> dict[str, Tensor]:
    shapes = weight_shapes(sketch(name, example_of(name), 5, width=NARROW))
    return random_masks(shapes, uniform(shapes, density), seed=2)


@every_model
def test_from_sketch_to_forward(name):
    """A sketch has the names and shapes of a real network, and becomes one with the same initial values of the rest."""
    outline = sketch(name, example_of(name), 5, width=NARROW)
    assert all(t.is_meta for t in [*outline.parameters(), *outline.buffers()])
    shapes = weight_shapes(outline)
    model = materialise(outline)
    assert all(torch.isnan(weight).all() for weight in weight_values(model).values())
    assert all(torch.isfinite(p).all() for p in other_parameters(model).values())
    draw_active_(model, {}, seed=1)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    real = models[name](example_of(name), 5, width=NARROW)
    assert weight_shapes(real) == shapes == weight_shapes(model)
    assert model.state_dict().keys() == real.state_dict().keys()
    others = other_parameters(model) | dict(model.named_buffers())
    for key, value in (other_parameters(real) | dict(real.named_buffers())).items():
        assert torch.equal(others[key], value), key
    logits = model(images(name, 6).float())
    assert logits.shape == (6, 5)
    assert torch.isfinite(logits).all()
    check_masks(model, {key: torch.ones(shape, dtype=torch.bool) for key, shape in shapes.items()})


@every_model
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_making_a_network_draws_nothing(name, norm):
    """Biases are 0 and the global generator is where it was, so that no value depends on what was drawn before."""
    before = torch.get_rng_state()
    model = materialise(sketch(name, example_of(name), 5, width=NARROW, norm=norm))
    assert torch.equal(torch.get_rng_state(), before)
    for made in (model, models[name](example_of(name), 5, width=NARROW, norm=norm)):
        of_weights = [m.bias for m in made.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m.bias is not None]
        assert not any(bias.any() for bias in of_weights)
        assert {float(p.detach().min()) for p in other_parameters(made).values()} <= {0.0, 1.0}


def test_a_bias_beside_a_weight_starts_at_0_in_anyones_network():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2), nn.PReLU(), nn.BatchNorm1d(2))
    materialise(model)
    values = {name: p.tolist() for name, p in other_parameters(model).items()}
    assert values == {
        "0.bias": [0.0] * 3,
        "2.bias": [0.0] * 2,
        "3.weight": [0.25],
        "4.weight": [1.0] * 2,
        "4.bias": [0.0] * 2,
    }


@every_model
def test_every_option_is_a_field_of_a_run_and_holds_the_models_default(name):
    options = options_of(name)
    assert options.keys() <= ModelSpec.model_fields.keys() - {"name", "options"}
    spec = ModelSpec(name=name)
    assert spec.arguments() == options
    untaken = ModelSpec.model_fields.keys() - options.keys() - {"name"}
    assert all(getattr(spec, field) is None for field in untaken)
    assert {"width", "activation"} <= options.keys(), "a twin has another width; comparisons vary the activation"


OTHER_VALUES: dict[str, tuple[Any, ...]] = {
    "depth": (3, 8, 10),
    "width": (NARROW - 1,),
    "widths": ((5, 3), (2, 3, 9, 4)),
    "padding": (2,),
    "activation": ("sigmoid",),
    "norm": ("none", "batch", "layer"),
    "norm_affine": (False,),
    "skip": (True, False),
    "shortcut": ("conv", "pad"),
    "stem": ("imagenet", "cifar"),
    "dropout": (0.5,),
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in models.names for option in options_of(name)])
def test_no_option_does_nothing(name, option):
    """Another value that the model takes gives another network: other parameters, or another output."""
    base = {"norm": "batch"} if "norm" in options_of(name) else {}
    own = base.get(option, options_of(name)[option])
    one = trace_of(name, **base)
    changed = 0
    for value in OTHER_VALUES[option]:
        if value == own:
            continue
        try:
            other = trace_of(name, **{**base, option: value})
        except BadValue:
            continue  # a depth of another family, a norm that images do not take
        assert other != one, value
        changed += 1
    assert changed


def trace_of(name: str, **options: Any) -> tuple[Any, ...]:
    model = drawn(name, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {key: value.shape for key, value in model.state_dict().items()}, model(images(name)).tolist()


@every_model
def test_a_narrower_network_is_a_twin_layer_by_layer(name):
    """Matching needs the same layers, each of them no larger; a layer of one unit is the smallest."""
    wide = weight_shapes(sketch(name, example_of(name), 5))
    whole = options_of(name)["width"] or next(iter(wide.values()))[0]
    for width in sorted({1, 2, whole // 3, whole - 1}):
        narrow = weight_shapes(sketch(name, example_of(name), 5, width=width))
        counts = matching_rules["active-weights"](wide, narrow)
        assert list(counts) == list(wide)
        assert sum(counts.values()) < sum(shape.numel() for shape in wide.values())


@every_model
def test_every_activation_has_a_place_of_its_own(name):
    """One module is one place: what is observed or changed there is nowhere else. So are convolutions and norms."""
    model = drawn(name, activation="prelu", norm="batch")
    calls = {key: 0 for key, m in model.named_modules() if list(m.parameters(recurse=False))}
    for key in calls:

        def count(module: nn.Module, inputs: Any, output: Any, key: str = key) -> None:
            calls[key] += 1

        model.get_submodule(key).register_forward_hook(count)
    model(images(name))
    calls.pop("", None)  # a parameter of the network itself
    assert set(calls.values()) == {1}
    assert any(isinstance(model.get_submodule(key), nn.PReLU) for key in calls)


@every_model
@pytest.mark.parametrize("activation", activations.names)
def test_every_model_takes_every_activation(name, activation):
    kinds = [type(m) for m in sketch(name, example_of(name), 5, width=NARROW, activation=activation).modules()]
    assert type(activations[activation]()) in kinds
    rest = {type(activations[other]()) for other in activations.names if other != activation}
    assert not rest & set(kinds)


@every_model
def test_compact_is_masked(name):
    """All plain convolutions and linear layers convert; depthwise ones stay masked and are listed with the reason."""
    masks = random_masks_of(name)
    masked, small = drawn(name, masks), drawn(name, masks)
    conversion = compact(small, masks)
    depthwise = {
        f"{prefix}.weight" for prefix, m in masked.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    }
    assert set(conversion.left_masked) == depthwise
    assert all("groups" in reason for reason in conversion.left_masked.values())
    assert set(conversion.compacted) == masks.keys() - depthwise == stand_ins(small).keys()
    assert active_counts(small, masks) == active_counts(masked, masks)
    x, y = images(name), torch.tensor([0, 1, 4, 2])
    for training in (True, False):
        expected, found = masked.train(training)(x), small.train(training)(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    F.cross_entropy(expected, y).backward()
    F.cross_entropy(found, y).backward()
    ours, theirs = other_parameters(small), other_parameters(masked)
    assert ours.keys() == theirs.keys()
    for key, p in theirs.items():
        torch.testing.assert_close(ours[key].grad, p.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(dict(small.state_dict()), dict(masked.state_dict()), rtol=1e-9, atol=1e-9)
    assert forward_flops(small, masks, x[:1]) == forward_flops(masked, masks, x[:1])


IMAGES_ONLY = [name for name in models.names if name not in ("mlp", "lenet-300-100")]


@pytest.mark.parametrize("name", IMAGES_ONLY)
@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 2, 3, 4)])
def test_networks_of_convolutions_need_images(name, shape):
    with pytest.raises(BadValue, match=r"images \(channels, height, width\)"):
        sketch(name, shape, 5)


@pytest.mark.parametrize("name", IMAGES_ONLY)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 5), (3, 15, 16), (3, 16, 17), (1, 28, 28)])
def test_images_of_any_size_pass_or_are_refused_in_words(name, shape):
    if name == "vgg16" and min(shape[1:]) < 16:
        with pytest.raises(BadValue, match=f"at least 16 x 16 pixels, got {shape[1]} x {shape[2]}"):
            sketch(name, shape, 5, width=2)
        return
    model = sketch(name, shape, 5, width=2)
    with torch.device("meta"):
        assert model(torch.empty(3, *shape)).shape == (3, 5)


IMPOSSIBLE = {
    "width": (0,),
    "padding": (-1,),
    "norm": ("group",),
    "dropout": (1.0, -0.1),
    "stem": ("tiny",),
    "shortcut": ("B",),
}


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, key, value) for name in models.names for key in options_of(name) for value in IMPOSSIBLE.get(key, ())],
)
def test_impossible_options_are_refused(name, option, value):
    with pytest.raises(BadValue, match=option):
        sketch(name, example_of(name), 5, **{option: value})


@every_model
def test_only_the_perceptron_is_trained_stacked(name):
    spec = validate(RunSpec, {"model": {"name": name, "width": 2}})
    assert stacks(spec, example_of(name), 5) == (name == "mlp")
