"""Stacked training: each member ends with the bits that it has in any other stack, and with its unstacked numbers.

Equal bits whoever shares the stack are what lets a study be resumed with other groups or another number of workers.
Rounding differs from the unstacked program's, so against that the laws are of trainings that stay together.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from sparseflow import data
from sparseflow.core import BadValue
from sparseflow.models import activations
from sparseflow.study import DataFacts, RunSpec, Surroundings, execute, execute_group, validate
from sparseflow.study.build import build, optimizer_for, plan_for, stacks
from sparseflow.study.groups import grouped
from sparseflow.train import Stack, Trainer, checkpoint, obstacle, optimizers

VARIANTS: dict[str, dict[str, Any]] = {
    "NR": {},
    "DA_L2_L1": {"data": {"augment": True}, "optimizer": {"weight_decay": 1e-3, "l1": 1e-4}},
    "BN": {"model": {"norm": "batch"}},
    "BN_plain": {"model": {"norm": "batch", "norm_affine": False}},
    "LN": {"model": {"norm": "layer"}, "optimizer": {"weight_decay": 1e-3, "decay_others": False}},
    "SC_BN_DO": {"model": {"skip": True, "norm": "batch", "dropout": 0.3}},
    "SC_DO": {"model": {"skip": True, "dropout": 0.3}},
    "cosine": {"optimizer": {"schedule": {"name": "cosine", "warmup_epochs": 1}}},
    "dense": {"mask": {"twin_width": None}},
}
OPTIMIZERS = {f"{name}-{how}": (name, how) for name in optimizers.names for how in ("auto", "plain", "foreach")}


@cache
def digits(dtype: str) -> data.Prepared:
    """437 examples: batches of 50 end with one of 37, batches of 128 with one of 53."""
    return data.prepare(data.load("digits"), train_limit=437, dtype=getattr(torch, dtype))


def trainer(seed: int, dtype: str = "float64", **sections: Any) -> Trainer:
    """A training of width 27 (no multiple of any vector), depth 3, two epochs."""
    content = {
        "data": {"name": "digits"},
        "model": {"depth": 3, "width": 27},
        "mask": {"twin_width": 11},
        "optimizer": {"lr": 0.01},
        "train": {"epochs": 2, "batch_size": 50, "dtype": dtype},
        "seed": seed,
    }
    for name, fields in sections.items():
        content[name] = {**content[name], **fields}
    spec = validate(RunSpec, content)
    prepared = digits(dtype)
    assert stacks(spec, prepared.input_shape, prepared.classes)
    network = build(spec, prepared.input_shape, prepared.classes)
    return Trainer(network.model, network.masks, optimizer_for(spec, network.model), prepared, plan_for(spec))


def distance(one: Trainer, other: Trainer) -> float:
    """Largest difference of any parameter, buffer or measured value, relative to the largest entry of its tensor."""
    a, b = one.model.state_dict(), other.model.state_dict()
    assert a.keys() == b.keys()
    weights = max(float((a[n] - b[n]).abs().max()) / (float(a[n].abs().max()) or 1.0) for n in a)
    assert one.final.keys() == other.final.keys()
    return max(weights, *(abs(other.final[n] - v) / (abs(v) or 1.0) for n, v in one.final.items()))


def bits(trainers: list[Trainer]) -> list[Any]:
    """All that a training leaves: weights, buffers, measured values, optimiser state."""
    return [
        (outcome, t.history.rows, checkpoint_of(t)) for t, outcome in zip(trainers, Stack(trainers).run(), strict=True)
    ]


def checkpoint_of(t: Trainer) -> list[Any]:
    states = t.optimizer.state_dict()["state"]
    return [
        (k, key, v.tolist() if isinstance(v, torch.Tensor) else v) for k, s in states.items() for key, v in s.items()
    ]


def assert_stacked_is_unstacked(make: Any, tolerance: float = 1e-9) -> None:
    alone, stacked = [make(seed) for seed in range(3)], [make(seed) for seed in range(3)]
    expected = [t.run() for t in alone]
    found = Stack(stacked).run()
    for a, b, want, got in zip(alone, stacked, expected, found, strict=True):
        assert distance(a, b) < tolerance
        assert (got.status, got.step, got.epoch, got.examples) == (want.status, want.step, want.epoch, want.examples)
        assert [row[:4] for row in a.history.rows] == [row[:4] for row in b.history.rows]
        for name, mask in b.sparse.masks.items():
            weight = b.model.get_parameter(name)
            assert not weight[~mask].any()
            for key, value in b.optimizer.state[weight].items():
                if isinstance(value, torch.Tensor) and value.shape == mask.shape:
                    assert not value[~mask].any(), key
    assert distance(alone[0], stacked[1]) > 1e-3, "the members are one and the same"


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_stacked_is_unstacked(variant):
    assert_stacked_is_unstacked(lambda seed: trainer(seed, **variant))


@pytest.mark.parametrize("activation", activations.names)
def test_stacked_is_unstacked_for_every_activation(activation):
    assert_stacked_is_unstacked(lambda seed: trainer(seed, model={"activation": activation, "norm": "batch"}), 1e-8)


@pytest.mark.parametrize(("optimizer", "how"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_stacked_is_unstacked_for_every_optimizer(optimizer, how):
    settings = {"name": optimizer, "implementation": how, "lr": 0.001, "weight_decay": 1e-3}
    assert_stacked_is_unstacked(lambda seed: trainer(seed, optimizer=settings, model={"norm": "batch"}), 1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sections",
    [
        *VARIANTS.values(),
        *({"model": {"activation": name}, "optimizer": {"name": "adam"}} for name in activations.names),
        {"model": {"width": 32, "activation": "swish", "norm": "batch"}, "train": {"batch_size": 128}},
        {"model": {"width": 7}, "mask": {"twin_width": None}, "train": {"batch_size": 128}},
    ],
    ids=str,
)
def test_bits_do_not_depend_on_the_others(sections, dtype):
    """Alone, among three in another order, among seven."""
    alone = {seed: bits([trainer(seed, dtype, **sections)])[0] for seed in (0, 3)}
    for seeds in ((3, 5, 0), (6, 1, 0, 2, 4, 3, 5)):
        stack = dict(zip(seeds, bits([trainer(seed, dtype, **sections) for seed in seeds]), strict=True))
        for seed, expected in alone.items():
            assert stack[seed] == expected


def test_members_of_other_masks_and_starts_share_a_stack():
    """Of the comparison's sparse members, that is: one shape, twins of five widths."""
    twins = (4, 11, 20)
    together = bits([trainer(1, mask={"twin_width": width}) for width in twins])
    assert together == [bits([trainer(1, mask={"twin_width": width})])[0] for width in twins]


def test_a_member_that_diverges_leaves_and_the_others_go_on():
    def spoilt() -> Trainer:
        bad = trainer(1)
        with torch.no_grad():
            next(bad.model.parameters()).mul_(1e200)
        return bad

    members = [trainer(0), spoilt(), trainer(2)]
    outcomes = Stack(members).run()
    alone = spoilt().run()
    assert [o.status for o in outcomes] == ["finished", "diverged", "finished"]
    assert (outcomes[1].epoch, outcomes[1].step) == (alone.epoch, alone.step) == (0, 9)
    assert outcomes[0] == Stack([trainer(0)]).run()[0]
    assert outcomes[2] == Stack([trainer(2)]).run()[0]


def stopped_after(epochs: int, members: list[Trainer]) -> None:
    counter = itertools.count(1)
    for member in members:
        member.should_stop = lambda: next(counter) >= epochs
    for member in members[1:]:
        member.should_stop = members[0].should_stop
    assert {o.status for o in Stack(members).run()} == {"stopped"}


HARD = {**VARIANTS["SC_BN_DO"], "data": {"augment": True}, "train": {"epochs": 4}}


@pytest.mark.parametrize("optimizer", optimizers.names)
def test_a_stack_goes_on_in_other_groups(optimizer, tmp_path):
    def member(seed: int) -> Trainer:
        own = trainer(seed, "float32", **HARD, optimizer={"name": optimizer, "schedule": {"name": "cosine"}})
        own.save_to = tmp_path / f"{seed}.pt"
        return own

    whole = [outcome.digest for outcome in Stack([member(seed) for seed in range(3)]).run()]
    stopped_after(2, [member(seed) for seed in range(3)])
    for seeds in ((1,), (2, 0)):
        members = [member(seed) for seed in seeds]
        assert [m.resume() for m in members] == ["resumed"] * len(seeds)
        assert [outcome.digest for outcome in Stack(members).run()] == [whole[seed] for seed in seeds]


def test_a_checkpoint_is_the_unstacked_ones_and_goes_on_either_way(tmp_path):
    def member(seed: int, where: str) -> Trainer:
        own = trainer(seed, **HARD, optimizer={"name": "adam", "schedule": {"name": "cosine"}})
        own.save_to = tmp_path / f"{where}{seed}.pt"
        return own

    alone = member(0, "alone")
    alone.should_stop = lambda: True
    assert alone.run().status == "stopped"
    stopped_after(1, [member(seed, "stacked") for seed in range(3)])
    one, other = (checkpoint.load(tmp_path / f"{where}0.pt") for where in ("alone", "stacked"))
    assert outline(one) == outline(other)
    sizes = [(tmp_path / f"{where}0.pt").stat().st_size for where in ("alone", "stacked")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    unbroken = member(0, "unbroken")
    unbroken.run()
    from_stack, from_alone = member(0, "stacked"), member(0, "alone")
    assert from_stack.resume() == from_alone.resume() == "resumed"
    from_stack.run()
    Stack([from_alone]).run()
    assert distance(unbroken, from_stack) < 1e-8
    assert distance(unbroken, from_alone) < 1e-8


def outline(content: Any) -> Any:
    """Names, types and shapes of a checkpoint."""
    if isinstance(content, dict):
        return {key: outline(value) for key, value in content.items() if key not in ("seconds", "final")}
    if isinstance(content, list | tuple):
        return [outline(value) for value in content]
    return (content.shape, content.dtype) if isinstance(content, torch.Tensor) else type(content)


def test_members_own_their_tensors_again_at_the_end():
    members = [trainer(0), trainer(1)]
    Stack(members).run()
    for member in members:
        for tensor in member.model.state_dict().values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": {"width": 28}}, "parameters"),
        ({"model": {"activation": "elu"}}, "modules"),
        ({"train": {"epochs": 3}}, "plan"),
        ({"optimizer": {"weight_decay": 0.1}}, "optimizer"),
    ],
)
def test_other_trainings_are_refused(change, what):
    with pytest.raises(BadValue, match=what):
        Stack([trainer(0), trainer(1, **change)])


def test_other_progress_and_other_optimisers_are_refused():
    ahead = trainer(0)
    ahead.epoch = 1
    with pytest.raises(BadValue, match="progress"):
        Stack([ahead, trainer(1)])
    whole = trainer(0)
    whole.optimizer = torch.optim.LBFGS(whole.model.parameters())
    with pytest.raises(BadValue, match="LBFGS does not update every element by itself"):
        Stack([whole])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].register_forward_hook(lambda *args: None)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Twice(), "used 2 times"),
        (tied(), "tied"),
        (hooked(), "hooks"),
        (nn.Sequential(nn.Conv2d(3, 3, 1)), "Conv2d has no stacked form"),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), "Dropout has no stacked form"),
        (nn.Sequential(nn.Linear(3, 3)).requires_grad_(False), "frozen"),
        (nn.Sequential(nn.BatchNorm1d(3, momentum=None)), "BatchNorm1d has no stacked form"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=0.5)), "different momentum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_stacked_form_is_said(model, reason):
    assert reason in obstacle(model)


# In studies ---------------------------------------------------------------------------------------------------------


def rows_of(spec: RunSpec, cache: Any) -> tuple[Any, list[Any]]:
    rows: list[Any] = []
    return execute(spec, Surroundings(), cache, rows.extend), rows


def test_a_group_has_the_results_of_its_runs_alone(small, cache):
    """Validation splits differ by seed, so the members see other data, each its own."""
    specs = [small(seed=s, data={"val_fraction": 0.2}, model={"norm": "batch"}) for s in range(3)]
    rows: dict[str, list[Any]] = {spec.name: [] for spec in specs}
    results = execute_group(specs, Surroundings(), cache, lambda spec, new: rows[spec.name].extend(new))
    for spec, result in results:
        alone, expected = rows_of(spec, cache)
        assert result.stacked
        assert alone.stacked
        assert rows[spec.name] == expected
        assert (result.digest, result.final) == (alone.digest, alone.final)


@pytest.mark.parametrize("measure", [{}, {"average": "norms"}, {"batch_norm": "eval"}, {"others": True}])
def test_measurements_are_the_unstacked_ones(measure, small, cache):
    model = {"norm": "batch", "activation": "prelu", "dropout": 0.2}
    stacked, never = (
        rows_of(small(model=model, measure=measure, train={"dtype": "float64", "stack": how}), cache)
        for how in ("auto", "never")
    )
    assert stacked[0].stacked
    assert not never[0].stacked
    for (*at, value), (*expected_at, expected) in zip(stacked[1], never[1], strict=True):
        assert at == expected_at
        assert value == pytest.approx(expected, rel=1e-8, abs=1e-12), at


def test_a_run_that_cannot_begin_leaves_its_group(small, cache):
    bad = small(data={"name": "/nowhere/at-all.npz"})
    results = {
        spec.name: result for spec, result in execute_group([small(), bad, small(seed=1)], Surroundings(), cache)
    }
    assert [results[spec.name].status for spec in (small(), bad, small(seed=1))] == ["finished", "failed", "finished"]
    assert results[small().name].digest == execute(small(), Surroundings(), cache).digest


def test_whether_a_run_is_stacked_follows_from_its_specification(small):
    shape, classes = (3, 6, 6), 4
    assert stacks(small(), shape, classes)
    assert stacks(small(mask={"execution": "masked"}), shape, classes)
    for change in (
        {"train": {"stack": "never"}},
        {"mask": {"execution": "compact"}},
        {"model": {"width": 400}},
    ):
        assert not stacks(small(**change), shape, classes)


DIGITS = DataFacts("digits", (64,), 10, 1437, 360, "")


def test_groups_are_of_one_shape_and_leave_work_for_all():
    def specs(count: int, **sections: Any) -> list[RunSpec]:
        return [validate(RunSpec, {**sections, "seed": seed}) for seed in range(count)]

    sparse, dense = specs(9, mask={"twin_width": 7}), specs(3, model={"width": 7})
    other, wide = specs(3, mask={"twin_width": 20}), specs(2, model={"width": 5000})
    every = [*sparse, *dense, *wide, *other]
    groups = grouped(every, 2, lambda run: DIGITS)
    assert sorted(run.name for group in groups for run in group) == sorted(run.name for run in every)
    assert groups == [
        (*sparse[:6],),
        (*sparse[6:], *other),
        tuple(dense),
        (wide[0],),
        (wide[1],),
    ]
    assert [len(group) for group in grouped(sparse[:8], 2, lambda run: DIGITS)] == [4, 4]
    assert [len(group) for group in grouped(dense, 4, lambda run: DIGITS)] == [1, 1, 1]
