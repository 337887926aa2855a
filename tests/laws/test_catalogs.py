"""Every registered method x what must always hold; a new entry is tested here without an edit."""

from __future__ import annotations

import importlib
import pkgutil
from itertools import product

import pytest
import torch
from torch import nn

import sparseflow
from sparseflow.core import (
    Catalog,
    Entry,
    SparseflowError,
    UnknownName,
    other_parameters,
    stand_ins,
    weight_shapes,
    weight_values,
)
from sparseflow.init import Scheme, distributions, fans, schemes
from sparseflow.masks import matching_rules, random_masks
from sparseflow.models import activations, models, sketch
from sparseflow.sparse import compact
from sparseflow.train import Sparse, make_optimizer, make_schedule, optimizers, schedules


def found_catalogs() -> dict[str, tuple[Catalog, str]]:
    """Kind -> (catalog, a module it was found in), over all modules of the package."""
    found: dict[int, tuple[Catalog, list[str]]] = {}
    for info in pkgutil.walk_packages(sparseflow.__path__, "sparseflow."):
        if info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Catalog):
                found.setdefault(id(value), (value, []))[1].append(info.name)
    assert len({catalog.kind for catalog, _ in found.values()}) == len(found), "two catalogs of one kind"
    return {catalog.kind: (catalog, where) for catalog, where in found.values()}


CATALOGS = found_catalogs()
EVERY_ENTRY = [pytest.param(c, e, id=f"{c.kind}-{e.name}") for c, _ in CATALOGS.values() for e in c]


def test_the_known_catalogs_are_found():
    assert {"activation", "model", "matching rule", "optimizer", "schedule", "data set"} <= CATALOGS.keys()
    assert all(len(catalog) for catalog, _ in CATALOGS.values())


@pytest.mark.parametrize(("catalog", "entry"), EVERY_ENTRY)
def test_entry_says_what_it_is(catalog: Catalog, entry: Entry):
    assert entry.name
    assert entry.name == entry.name.strip()
    assert entry.cite.strip()
    assert entry.summary.strip()
    assert "\n" not in entry.summary
    assert len(entry.summary) <= 100, f"{len(entry.summary)} characters"
    assert entry.summary.endswith((".", ":", ")"))
    assert catalog.entry(entry.name) is entry
    assert catalog[entry.name] is entry.make
    assert entry.name in catalog


@pytest.mark.parametrize("kind", CATALOGS)
def test_unknown_name_lists_the_known_and_guesses_the_nearest(kind):
    catalog, _ = CATALOGS[kind]
    longest = max(catalog.names, key=len)
    with pytest.raises(UnknownName) as caught:
        catalog[longest + "x"]
    message = str(caught.value)
    assert kind in message
    assert all(name in message for name in catalog.names)
    if len(longest) > 3:
        assert f"did you mean {longest!r}" in message
    with pytest.raises(UnknownName) as caught:
        catalog["qqqqqqqq"]
    assert "did you mean" not in str(caught.value)
    assert "qqqqqqqq" not in catalog


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_taken_name_is_refused_and_nothing_changes(kind):
    catalog, _ = CATALOGS[kind]
    before = list(catalog)

    def another():
        """Another method of the same name."""

    with pytest.raises(SparseflowError, match="already"):
        catalog.add(catalog.names[0], cite="nobody")(another)
    assert list(catalog) == before


def test_a_method_without_a_docstring_is_refused():
    catalog: Catalog = Catalog("thing")
    with pytest.raises(SparseflowError, match="docstring"):
        catalog.add("bare", cite="nobody")(lambda: None)
    assert len(catalog) == 0


@pytest.mark.parametrize("kind", CATALOGS)
def test_a_catalog_belongs_to_one_floor(kind):
    """Its entries are made on the floor that owns it, the lowest one that knows it."""
    catalog, where = CATALOGS[kind]
    owners = {entry.make.__module__.split(".")[1] for entry in catalog}
    assert len(owners) == 1
    assert owners <= {name.split(".")[1] for name in where}


# Activations -------------------------------------------------------------------------------------------------------

EVERY_ACTIVATION = [pytest.param(entry.make, id=entry.name) for entry in activations]


@pytest.mark.parametrize("make", EVERY_ACTIVATION)
def test_activation_is_elementwise(make):
    f = make()
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    y = f(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    moved = x.clone()
    moved[1, 2, 1] += 1.0
    assert (f(moved) != y).nonzero().tolist() in ([[1, 2, 1]], [])
    torch.testing.assert_close(f(x.flatten()[:7]), y.flatten()[:7])


@pytest.mark.parametrize("make", EVERY_ACTIVATION)
def test_activation_gradient_is_right_away_from_kinks(make):
    f = make().double()
    x = torch.tensor([-3.1, -1.3, -0.4, 0.3, 0.8, 1.4, 2.7], dtype=torch.float64, requires_grad=True)
    parameters = [(p.detach() + 0.03 * k).requires_grad_() for k, p in enumerate(f.parameters(), start=1)]
    names = [name for name, _ in f.named_parameters()]

    def apply(x, *values):
        return torch.func.functional_call(f, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(apply, (x, *parameters))


@pytest.mark.parametrize("name", activations.names)
def test_activation_has_one_set_of_parameters_per_layer(name):
    one_set = sum(p.numel() for p in activations[name]().parameters())
    for width, depth in product((3, 17), (1, 4)):
        model = models["mlp"]((6,), 3, depth=depth, width=width, activation=name)
        others = sum(p.numel() for p in other_parameters(model).values())
        assert others == depth * one_set
        assert len({id(a) for a in model.activations}) == depth


@pytest.mark.parametrize("make", EVERY_ACTIVATION)
def test_activation_starts_from_the_same_values_every_time(make):
    a, b = make(), make()
    torch.randn(3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert all(p.numel() == 1 for p in a.parameters())


# Optimisers --------------------------------------------------------------------------------------------------------

SHAPES = {"0.weight": torch.Size((7, 5)), "2.weight": torch.Size((4, 7))}
MASKS = random_masks(SHAPES, {"0.weight": 13, "2.weight": 9}, seed=3)


def small_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4, bias=False))


def catalogued(name: str, implementation: str, **settings):
    def make(parameters):
        return make_optimizer(name, parameters, lr=0.05, implementation=implementation, **settings)

    return make


OPTIMIZERS = {
    f"{entry.name}-{how}-{decay:g}": catalogued(entry.name, how, weight_decay=decay)
    for entry in optimizers
    for how in ("plain", "foreach", "fused")
    for decay in (0.0, 0.1)
    if how != "fused" or entry.facts["fused"]
} | {
    # Straight from torch: state that starts elsewhere than at 0, and state of other shapes.
    "Adagrad-started": lambda ps: torch.optim.Adagrad(ps, lr=0.05, initial_accumulator_value=0.3),
    "Rprop": lambda ps: torch.optim.Rprop(ps, lr=0.02),
    "Adam-amsgrad": lambda ps: torch.optim.Adam(ps, amsgrad=True),
    "NAdam": lambda ps: torch.optim.NAdam(ps),
    "RAdam": lambda ps: torch.optim.RAdam(ps),
    "Adamax": lambda ps: torch.optim.Adamax(ps),
    "Adadelta": lambda ps: torch.optim.Adadelta(ps),
    "ASGD": lambda ps: torch.optim.ASGD(ps),
    "RMSprop-centered": lambda ps: torch.optim.RMSprop(ps, centered=True, momentum=0.9),
    "SGD-nesterov": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
}


def initial_state(make, shape: torch.Size) -> dict[str, torch.Tensor]:
    """What an optimiser's elementwise state starts at: that of a zero weight that only ever saw a gradient of 0."""
    idle = nn.Parameter(torch.zeros(shape))
    optimizer = make([idle])
    for _ in range(2):
        idle.grad = torch.zeros(shape)
        optimizer.step()
    assert not idle.any()
    if isinstance(optimizer, torch.optim.Adamax):
        # It adds eps to every |gradient|, also to one of 0; the norm itself starts at 0.
        optimizer.state[idle]["exp_inf"] -= optimizer.param_groups[0]["eps"]
    return {k: v for k, v in optimizer.state[idle].items() if isinstance(v, torch.Tensor) and v.shape == shape}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("noise", ["through-backward", "in-grad", "nan-at-masked"])
def test_masked_weights_and_their_state_never_move(make, noise):
    model = small_net()
    optimizer = make(model.parameters())
    sparse = Sparse(model, MASKS, optimizer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        optimizer.zero_grad()
        draws = {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
        if noise == "through-backward":
            sum((p * draws[name]).sum() for name, p in model.named_parameters()).backward()
            assert not any(weight.grad[~MASKS[name]].any() for name, weight in weight_values(model).items())
        else:
            for name, p in model.named_parameters():
                p.grad = draws[name]
                if noise == "nan-at-masked" and name in MASKS:
                    p.grad[~MASKS[name]] = torch.nan
        optimizer.step()
        for name, mask in MASKS.items():
            weight = model.get_parameter(name)
            assert not weight[~mask].any()
            assert torch.isfinite(weight).all()
            assert weight[mask].all()
            start = initial_state(make, weight.shape)
            state = {
                k: v
                for k, v in optimizer.state[weight].items()
                if isinstance(v, torch.Tensor) and v.shape == weight.shape
            }
            assert state.keys() == start.keys()
            for key, value in state.items():
                assert torch.equal(value[~mask], start[key][~mask]), key
                assert torch.isfinite(value).all(), key
    assert sparse.steps == 4


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_masked_network_moves_as_if_the_masked_weights_did_not_exist(make):
    """Masked and compact see the same gradients of their active weights, and take the same elementwise steps."""
    masked, small = small_net(), small_net()
    # Dense initial values differ only where the mask drops them.
    assert compact(small, MASKS).compacted == tuple(MASKS)
    first, second = make(masked.parameters()), make(small.parameters())
    Sparse(masked, MASKS, first)
    Sparse(small, MASKS, second)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        for name, values in weight_values(small).items():
            g = torch.randn(SHAPES[name], generator=generator)
            masked.get_parameter(name).grad = g
            values.grad = g.t()[MASKS[name].t()]  # by input, then by output
        bias = torch.randn(7, generator=generator)
        masked.get_parameter("0.bias").grad, small.get_parameter("0.bias").grad = bias, bias.clone()
        first.step()
        second.step()
        for name, layer in stand_ins(small).items():
            torch.testing.assert_close(layer.dense_weight(), masked.get_parameter(name).detach())
            assert not layer.dense_weight()[~MASKS[name]].any()
            elementwise = [v for v in second.state[layer.values].values() if isinstance(v, torch.Tensor) and v.dim()]
            assert all(v.shape == (MASKS[name].sum(),) for v in elementwise)


def test_a_weight_that_wakes_up_starts_from_the_optimisers_initial_state():
    """Rprop with a zeroed step size would never move again."""
    weight = nn.Parameter(torch.ones(2, 3))
    layer = nn.Linear(3, 2, bias=False)
    layer.weight = weight
    optimizer = torch.optim.Rprop([weight], lr=0.02)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    sparse = Sparse(layer, {"weight": mask}, optimizer)
    for _ in range(3):
        weight.grad = torch.ones(2, 3)
        optimizer.step()
    sparse.remove()
    weight.grad = torch.ones(2, 3)
    optimizer.step()
    # A weight that wakes up makes Rprop's very first step: step size lr, previous gradient 0.
    torch.testing.assert_close(weight.detach()[~mask], torch.full((2,), -0.02))


# Schedules ---------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "constant": {},
    "step": {"milestones": (4, 6), "gamma": 0.2},
    "cosine": {"final": 0.1},
}
TOTAL, PER_EPOCH = 80, 10


def test_every_schedule_is_under_these_laws():
    assert SCHEDULES.keys() == set(schedules.names)


@pytest.mark.parametrize("warmup", [0.0, 1.5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_a_pure_function_into_0_1(name, warmup):
    factor = make_schedule(name, TOTAL, PER_EPOCH, warmup_epochs=warmup, **SCHEDULES[name])
    forth = [factor(step) for step in range(TOTAL)]
    back = [factor(step) for step in reversed(range(TOTAL))]
    assert forth == back[::-1]
    assert forth == [
        make_schedule(name, TOTAL, PER_EPOCH, warmup_epochs=warmup, **SCHEDULES[name])(s) for s in range(TOTAL)
    ]
    assert all(0 < f <= 1 for f in forth)


def test_schedules_start_and_end_where_they_should():
    assert make_schedule("constant", TOTAL, PER_EPOCH)(TOTAL) == 1
    step = make_schedule("step", TOTAL, PER_EPOCH, milestones=(4, 6), gamma=0.2)
    assert [step(s) for s in (0, 39, 40, 59, 60, 79)] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])
    cosine = make_schedule("cosine", TOTAL, PER_EPOCH)
    assert (cosine(0), cosine(TOTAL // 2), cosine(TOTAL)) == pytest.approx((1, 0.5, 0))
    assert make_schedule("cosine", TOTAL, PER_EPOCH, final=0.1)(TOTAL) == pytest.approx(0.1)
    warm = make_schedule("constant", TOTAL, PER_EPOCH, warmup_epochs=2)
    assert [warm(s) for s in (0, 9, 19, 20, 79)] == pytest.approx([1 / 20, 0.5, 1, 1, 1])


# Matching rules ----------------------------------------------------------------------------------------------------


def net_shapes(width: int, depth: int = 3) -> dict[str, torch.Size]:
    return weight_shapes(sketch("mlp", (1, 8, 8), 10, depth=depth, width=width))


@pytest.mark.parametrize("width", [1, 7, 34, 61, 68])
@pytest.mark.parametrize("name", matching_rules.names)
def test_matching_gives_every_layer_a_possible_count(name, width):
    wide, twin = net_shapes(68), net_shapes(width)
    counts = matching_rules[name](wide, twin)
    assert list(counts) == list(wide)
    assert all(1 <= counts[layer] <= wide[layer].numel() for layer in wide)
    assert all(isinstance(count, int) for count in counts.values())
    if name == "active-weights":
        assert counts == {layer: shape.numel() for layer, shape in twin.items()}
    assert matching_rules[name](wide, twin) == counts


@pytest.mark.parametrize("name", matching_rules.names)
def test_matching_grows_with_the_twin_and_refuses_a_wider_one(name):
    wide = net_shapes(30)
    totals = [sum(matching_rules[name](wide, net_shapes(width)).values()) for width in (2, 10, 20, 30)]
    assert totals == sorted(set(totals))
    with pytest.raises(SparseflowError, match="twin"):
        matching_rules[name](wide, net_shapes(31))
    with pytest.raises(SparseflowError, match="same layers"):
        matching_rules[name](wide, net_shapes(10, depth=2))


def test_active_neurons_connects_as_many_units_as_the_twin_has():
    """000 A.1, by simulation: random masks with the rule's counts connect about the twin's number of units."""
    wide, twin = net_shapes(40), net_shapes(12)
    counts = matching_rules["active-neurons"](wide, twin)
    last = list(wide)[-1]
    for layer in wide:
        axis = 0 if layer == last else 1
        connected = [
            int(random_masks(wide, {layer: counts[layer]}, seed)[layer].any(axis).sum()) for seed in range(300)
        ]
        mean = sum(connected) / len(connected)
        wanted = twin[layer][1 if layer == last else 0]
        # Rounds to the wanted number; the mean of 300 draws of deviation < 1.5 is within 0.4 of its expectation.
        assert wanted - 0.5 - 0.4 < mean < wanted + 0.5 + 0.4


# Initialisation ----------------------------------------------------------------------------------------------------

EVERY_SCHEME = [
    pytest.param(scheme, distribution, fan, id=f"{scheme}-{distribution}-{fan}")
    for scheme, distribution, fan in product(schemes, distributions, (None, "in", "out", "average"))
]


@pytest.mark.parametrize(("scheme", "distribution", "fan"), EVERY_SCHEME)
@pytest.mark.parametrize("shape", [(20, 30), (8, 6, 3, 3), (5, 1)])
def test_every_initialisation_draws_what_its_name_says(scheme, distribution, fan, shape):
    """Var = c / u; a uniform draw stays within sqrt(3 Var); the draw depends on the generator alone."""
    shape = torch.Size(shape)
    made = Scheme(scheme, distribution, fan)
    positions = shape[2:].numel()
    fan_in, fan_out = shape[1] * positions, shape[0] * positions
    assert fans(shape) == (fan_in, fan_out)
    c = {"he": 2, "glorot": 1}[scheme]
    default = {"he": "in", "glorot": "average"}[scheme]
    u = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[fan or default]
    assert made.deviation(shape) ** 2 == pytest.approx(c / u)
    first = made.draw(made.deviation(shape), 4000, torch.Generator().manual_seed(5), torch.float64)
    assert torch.equal(first, made.draw(made.deviation(shape), 4000, torch.Generator().manual_seed(5), torch.float64))
    assert first.shape == (4000,)
    assert first.dtype is torch.float64
    if distribution == "uniform":
        assert first.abs().max() <= (3 * c / u) ** 0.5
    else:
        assert first.abs().max() > (3 * c / u) ** 0.5
    assert first.var(correction=0).item() == pytest.approx(c / u, rel=0.12)


def test_unknown_names_of_an_initialisation():
    for arguments in (("hee",), ("he", "norml"), ("he", "normal", "inn")):
        with pytest.raises(UnknownName, match="did you mean"):
            Scheme(*arguments)
