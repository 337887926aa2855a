"""`Sparse` under every optimiser of torch and every implementation and variant that it has on a CPU."""

from __future__ import annotations

import inspect
import io

import pytest
import torch
from torch import Tensor, nn

from sparseflow import Sparse, compact
from sparseflow.core import BadValue
from sparseflow.masks import random_masks
from sparseflow.train import register_initial_state
from sparseflow.train import state as facts
from sparseflow.train.state import ELEMENTWISE, MATRICES, elementwise

KINDS = [
    kind
    for kind in vars(torch.optim).values()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]
DENSE = [kind for kind in KINDS if kind is not torch.optim.SparseAdam]  # takes sparse gradients alone

# Flags of a constructor that no test can vary: torch refuses them for leaves, or on a CPU.
NOT_HERE = {"differentiable", "capturable"}
COMPANIONS = {"nesterov": {"momentum": 0.9}, "centered": {"momentum": 0.9}}
STARTED = {"Adagrad": {"initial_accumulator_value": 0.3}, "SGD": {"momentum": 0.9}, "Adafactor": {"d": 2.0}}


def variants() -> dict[str, tuple[type, dict]]:
    """Name -> (class, settings): each flag of each constructor switched on by itself, and weight decay."""
    found = {}
    for kind in DENSE:
        parameters = inspect.signature(kind).parameters
        settings: list[dict] = [{}, STARTED.get(kind.__name__, {})]
        for name, parameter in parameters.items():
            if (isinstance(parameter.default, bool) or name in ("foreach", "fused")) and name not in NOT_HERE:
                value = not parameter.default if isinstance(parameter.default, bool) else True
                settings.append({name: value, **COMPANIONS.get(name, {})})
        if "weight_decay" in parameters:
            settings.append({"weight_decay": 0.1})
        for some in settings:
            found[f"{kind.__name__}({', '.join(f'{k}={v}' for k, v in some.items())})"] = kind, {"lr": 0.05, **some}
    # With a strong Wolfe line search the closure runs many times in a step.
    found["LBFGS(line search)"] = torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}
    return found


VARIANTS = variants()
every_variant = pytest.mark.parametrize(("kind", "settings"), VARIANTS.values(), ids=VARIANTS)

MASKS = random_masks(
    {"0.weight": torch.Size((7, 5)), "2.weight": torch.Size((4, 7))}, {"0.weight": 13, "2.weight": 9}, 3
)
ONES = {name: torch.ones_like(mask) for name, mask in MASKS.items()}
NEVER_MASKED = {"step", "eta", "mu", "mu_product", "row_var", "col_var"}
"""Keys of states that are no element's own."""


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4, bias=False))


def made(kind: type, settings: dict, model: nn.Module) -> torch.optim.Optimizer:
    matrices = kind is getattr(torch.optim, "Muon", None)
    return kind([p for p in model.parameters() if p.dim() == 2 or not matrices], **settings)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, poison: dict[str, Tensor] | None = None
) -> None:
    """Some steps, always by closure, which every optimiser takes; `poison` is added to the weights' gradients."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(8, 5, generator=draw), torch.randn(8, 4, generator=draw)

        def closure(x=x, y=y) -> Tensor:
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            for name, extra in (poison or {}).items():
                weight = model.get_parameter(name)
                loss = loss + Poison.apply(weight, extra)
            loss.backward()
            return loss

        optimizer.step(closure)


class Poison(torch.autograd.Function):
    """0, with a gradient of one's choice."""

    @staticmethod
    def forward(ctx, weight: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx, g: Tensor):
        return ctx.saved_tensors[0], None


def own_state(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    state = optimizer.state[weight]
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == weight.shape}


def initial_state(kind: type, settings: dict, shape: torch.Size) -> dict[str, Tensor]:
    """What elementwise state starts at: that of a zero weight that only ever saw a gradient of 0."""
    idle = nn.ParameterList([torch.zeros(shape)])
    optimizer = made(kind, settings, idle)
    for _ in range(2):
        idle[0].grad = torch.zeros(shape)
        optimizer.step(lambda: torch.zeros(()))
    if isinstance(optimizer, torch.optim.Adamax):
        # It adds eps to every |gradient|, also to one of 0; the norm itself starts at 0.
        optimizer.state[idle[0]]["exp_inf"] -= optimizer.param_groups[0]["eps"]
    return own_state(optimizer, idle[0])


def test_every_dense_optimiser_of_torch_is_classed():
    known = {*ELEMENTWISE, *MATRICES, torch.optim.LBFGS}
    assert set(DENSE) == known
    assert {kind.__name__ for kind, _ in VARIANTS.values()} == {kind.__name__ for kind in DENSE}
    assert len(VARIANTS) > 60


@every_variant
@pytest.mark.parametrize("poisoned", [False, True], ids=["clean", "nan-at-masked"])
def test_masked_weights_stay_0_and_their_state_at_its_start(kind, settings, poisoned):
    model = net()
    optimizer = made(kind, settings, model)
    sparse = Sparse(model, MASKS, optimizer)
    poison = {name: torch.zeros(mask.shape).masked_fill_(~mask, torch.nan) for name, mask in MASKS.items()}
    for taken in range(1, 5):
        before = {name: model.get_parameter(name).clone() for name in MASKS}
        train(model, optimizer, 1, poison if poisoned else None)
        assert sparse.steps == taken
        for name, mask in MASKS.items():
            weight = model.get_parameter(name)
            assert not weight[~mask].any(), name
            assert not weight.grad[~mask].any(), name
            assert torch.isfinite(weight).all()
            assert (weight != before[name])[mask].any() or taken > 1, "it learns"
            start = initial_state(kind, settings, weight.shape)
            state = own_state(optimizer, weight)
            assert state.keys() == start.keys()
            for key, value in state.items():
                assert torch.equal(value[~mask], start[key][~mask]), key
                assert torch.isfinite(value).all(), key
    weights = [model.get_parameter(name) for name in MASKS]
    others = {key for weight in weights for key in optimizer.state[weight].keys() - own_state(optimizer, weight).keys()}
    assert kind is torch.optim.LBFGS or others <= NEVER_MASKED


@every_variant
def test_masks_of_ones_change_no_bit(kind, settings):
    plain, kept = net(), net()
    optimizers = [made(kind, settings, model) for model in (plain, kept)]
    Sparse(kept, ONES, optimizers[1])
    for model, optimizer in zip((plain, kept), optimizers, strict=True):
        train(model, optimizer, 5)
    assert_same(plain, optimizers[0], kept, optimizers[1])


def assert_same(a: nn.Module, of_a: torch.optim.Optimizer, b: nn.Module, of_b: torch.optim.Optimizer) -> None:
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
    first, second = of_a.state_dict()["state"], of_b.state_dict()["state"]
    assert first.keys() == second.keys()
    for key, state in first.items():
        assert state.keys() == second[key].keys()
        for name, value in state.items():
            assert _equal(value, second[key][name]), name


def _equal(a, b) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@every_variant
def test_a_resumed_run_is_an_unbroken_one(kind, settings):
    """Model, optimiser and Sparse from their state_dicts, in fresh objects whose mask and weights were others."""
    whole = net()
    of_whole = made(kind, settings, whole)
    unbroken = Sparse(whole, MASKS, of_whole)
    train(whole, of_whole, 3)
    saved = [part.state_dict() for part in (whole, of_whole, unbroken)]
    saved = torch.load(_file(saved), weights_only=True)
    second = net()
    of_second = made(kind, settings, second)
    resumed = Sparse(second, {name: ~mask for name, mask in MASKS.items()}, of_second)
    for part, state in zip((second, of_second, resumed), saved, strict=True):
        part.load_state_dict(state)
    assert resumed.steps == 3
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in MASKS.items())
    for model, optimizer in ((whole, of_whole), (second, of_second)):
        train(model, optimizer, 3)
    assert_same(whole, of_whole, second, of_second)
    assert resumed.steps == unbroken.steps == 6


def _file(content) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", [kind for kind in DENSE if "capturable" in inspect.signature(kind).parameters])
def test_capturable_needs_an_accelerator(kind):
    """That is why no variant here has it; where torch takes it on a CPU one day, the variants must."""
    model = net()
    optimizer = kind(model.parameters(), capturable=True, foreach=False)
    with pytest.raises((RuntimeError, AssertionError), match="capturable"):
        train(model, optimizer, 1)


@pytest.mark.parametrize("kind", [*MATRICES, torch.optim.LBFGS], ids=lambda kind: kind.__name__)
def test_gradients_set_by_hand_do_not_reach_active_weights(kind):
    """An optimiser that mixes entries is given masked gradients even if no backward pass accumulated them."""
    ends = []
    for noise in (0.0, 5.0):
        model = net()
        optimizer = made(kind, {"lr": 0.05}, model)
        Sparse(model, MASKS, optimizer)
        assert not elementwise(optimizer)
        for name, mask in MASKS.items():
            model.get_parameter(name).grad = torch.ones(mask.shape).masked_fill_(~mask, noise)
        optimizer.step(lambda: torch.ones(()))
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in MASKS)


# Optimisers that torch does not have --------------------------------------------------------------------------------


class Lion(torch.optim.Optimizer):
    """Another's optimiser, with state that starts at 0 and state that does not."""

    def __init__(self, parameters, lr: float = 0.01):
        super().__init__(parameters, {"lr": lr, "scale": 2.0})

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for p in group["params"]:
                own = self.state[p]
                if not own:
                    own |= {"average": torch.zeros_like(p), "trust": torch.full_like(p, group["scale"]), "n": 0}
                    own["rows"] = torch.full((p.shape[0],), 7.0)
                own["average"].lerp_(p.grad + 1, 0.1)
                own["trust"].add_(1)
                own["rows"].add_(1)
                p.add_(own["average"].sign(), alpha=-group["lr"])


class Cub(Lion):
    """Inherits what is registered for its base."""


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(facts, "_INITIAL", dict(facts._INITIAL))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("kind", [Lion, Cub])
def test_state_of_an_unknown_optimiser_returns_to_0_unless_registered(kind):
    model = net()
    optimizer = kind(model.parameters())
    Sparse(model, MASKS, optimizer)
    train(model, optimizer, 2)
    weight, mask = model[0].weight, MASKS["0.weight"]
    assert not weight[~mask].any()
    assert not optimizer.state[weight]["average"][~mask].any()
    assert not optimizer.state[weight]["trust"][~mask].any()
    assert (optimizer.state[weight]["rows"] == 9).all()
    register_initial_state(Lion, {"trust": lambda group: group["scale"]})
    train(model, optimizer, 1)
    assert (optimizer.state[weight]["trust"][~mask] == 2).all()
    register_initial_state(Lion, {"average": 0.5})  # beside the first, which stays
    train(model, optimizer, 1)
    assert (optimizer.state[weight]["average"][~mask] == 0.5).all()
    assert (optimizer.state[weight]["trust"][~mask] == 2).all()
    assert (optimizer.state[weight]["trust"][mask] == 6).all()


def test_only_classes_of_optimisers_are_registered():
    for wrong in (nn.Linear, "Lion"):
        with pytest.raises(BadValue, match=r"subclass of torch\.optim\.Optimizer"):
            register_initial_state(wrong, {})


# Compact layers -----------------------------------------------------------------------------------------------------


def test_optimisers_of_matrices_are_refused_over_compact_values():
    model = compact(net(), MASKS, only=["0.weight"]).model
    optimizer = torch.optim.Adafactor(model.parameters())
    for masks in (MASKS, {}, {"2.weight": MASKS["2.weight"]}):
        with pytest.raises(BadValue, match=r"Adafactor .* 0\.weight.*only="):
            Sparse(model, masks, optimizer)
    # Over the layers that stayed masked it is welcome.
    rest = torch.optim.Adafactor([model[2].weight])
    Sparse(model, {"2.weight": MASKS["2.weight"]}, rest)
    model[0].values.requires_grad_(False)
    Sparse(model, MASKS, rest)


def test_muon_refuses_compact_values_itself():
    """Its constructor takes matrices alone, so no Sparse over it can have a vector."""
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon([compact(net(), MASKS).model[0].values])


def test_lbfgs_sees_no_order_and_so_takes_compact_values():
    masked, small = net().double(), compact(net().double(), MASKS).model
    for model in (masked, small):
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5)
        Sparse(model, MASKS, optimizer)
        draw = torch.Generator().manual_seed(1)
        x, y = (torch.randn(8, n, generator=draw, dtype=torch.float64) for n in (5, 4))

        def closure(model=model, optimizer=optimizer, x=x, y=y) -> Tensor:
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value, rtol=1e-8, atol=1e-10)
