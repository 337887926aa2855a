"""ToST's tweaks as part of runs: applied in order, resumed in their midst, gone at their end, noted."""

from __future__ import annotations

import itertools

import pytest
import torch

from sparseflow.core import BadSpec
from sparseflow.init import rescale_
from sparseflow.study import RunSpec, Surroundings, execute, validate
from sparseflow.study.build import build, plan_for
from sparseflow.study.tweaks import ghosts_for, rescale_start
from sparseflow.train import checkpoint

CONV = {"model": {"name": "resnet", "depth": 8, "width": 4}, "mask": {"twin_width": None, "density": 0.3}}
ALL = {"neurons": True, "skips": True, "alpha": 0.5, "until": 2, "rescale": {"iterations": 3}, "smoothing": 0.1}


@pytest.fixture
def tosted(small):
    def make(tost=ALL, **sections):
        base = {**CONV, "train": {"epochs": 3, "batch_size": 32}, "measure": {"points": 4}, **sections}
        run = small(**base)
        return validate(RunSpec, run.changes() | {"model": base["model"], "mask": base["mask"], "tost": tost})

    return make


def rows_by_metric(spec, where, cache):
    rows: list = []
    result = execute(spec, where, cache, rows.extend)
    assert result.status == "finished", result.error
    found: dict = {}
    for step, _, metric, layer, value in rows:
        found.setdefault((metric, layer), []).append((step, value))
    return result, found


def test_ghosts_leave_the_plain_network_behind(tosted, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path, keep=True)
    spec = tosted()
    _, found = rows_by_metric(spec, where, cache)
    plain = tosted(tost=None)
    data = cache.prepared(spec)
    network = build(plain, data.input_shape, data.classes)
    state = checkpoint.load(where.final_path(spec.name))["state_dict"]
    assert list(state) == list(network.model.state_dict())
    ((step, neurons),), ((_, skips),) = found["removal_of_neurons", ""], found["removal_of_skips", ""]
    assert step == 2 * 5
    assert 0 < neurons < 1e-2
    assert skips == 0.0


@pytest.mark.parametrize("execution", ["masked", "compact"])
@pytest.mark.parametrize("tost", [ALL, {**ALL, "until": 3, "shortcut": "conv", "shape": "cosine"}])
def test_stopped_among_ghosts_and_resumed_equals_unbroken(tost, execution, tosted, cache, tmp_path):
    spec = tosted(tost, mask={**CONV["mask"], "execution": execution})
    whole = execute(spec, Surroundings(checkpoints=tmp_path / "whole"), cache)
    broken = Surroundings(checkpoints=tmp_path / "broken")
    ends = []
    for _ in range(3):
        asked = itertools.count(1)
        result = execute(spec, broken, cache, should_stop=lambda c=asked: next(c) >= 1)
        ends.append(result.status)
    assert ends == ["stopped", "stopped", "finished"]
    assert result.digest == whole.digest
    assert result.training_flops == whole.training_flops


def test_the_start_is_rescaled_before_the_ghosts_come_and_only_once(tosted, cache, tmp_path):
    spec = tosted()
    data = cache.prepared(spec)
    network, other = (build(spec, data.input_shape, data.classes) for _ in range(2))
    path = tmp_path / "start.pt"
    drawn = checkpoint.raw_state(network.model)
    drawn = {name: value.clone() for name, value in drawn.items()}
    rescale_start(spec, network, data, path)
    rescaled = checkpoint.raw_state(network.model)
    assert any(not torch.equal(rescaled[name], value) for name, value in drawn.items())
    for name, mask in network.masks.items():
        if network.execution[name] == "masked":
            assert not network.model.get_parameter(name)[~mask].any()
    rescale_start(spec, other, data, path)
    assert all(torch.equal(value, rescaled[name]) for name, value in checkpoint.raw_state(other.model).items())
    content = checkpoint.load(path)
    content["model"] = {name: torch.zeros_like(value) for name, value in content["model"].items()}
    checkpoint.save(path, content)
    rescale_start(spec, other, data, path)  # what is kept is taken, not found again
    assert not any(value.any() for value in checkpoint.raw_state(other.model).values())
    rescale_start(spec.model_copy(update={"seed": 1}), other, data, path)  # but not another run's
    assert all(bool(torch.isfinite(value).all()) for value in checkpoint.raw_state(other.model).values())


def test_rescaling_is_that_of_the_library_on_the_run_s_batches(tosted, cache):
    spec = tosted({"rescale": {"iterations": 2, "scale_lr": 0.05}})
    data = cache.prepared(spec)
    network, other = (build(spec, data.input_shape, data.classes) for _ in range(2))
    rescale_start(spec, network, data, None)
    from sparseflow.core import stream

    order = torch.randperm(160, generator=stream(0, "rescale")).split(32)
    batches = [data.batch(data.train, part) for part in order]
    rescale_(other.model, other.masks, plan_for(spec).loss, batches, lr=0.05, iterations=2, scale_lr=0.05)
    mine, theirs = network.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_soft_labels_are_for_training_alone(tosted, cache):
    plain, soft = tosted(tost=None), tosted({"smoothing": 0.3})
    assert plan_for(plain).training_loss is None
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    assert plan_for(soft).loss(x, y) == plan_for(plain).loss(x, y)
    expected = torch.nn.functional.cross_entropy(x, y, label_smoothing=0.3)
    assert plan_for(soft).training_loss(x, y) == expected


def test_ghosts_wait_for_the_first_decay(tosted, cache):
    step = {"lr": 0.05, "schedule": {"name": "step", "milestones": [2, 3]}}
    spec = tosted({"neurons": True}, optimizer=step)
    data = cache.prepared(spec)
    network = build(spec, data.input_shape, data.classes)
    (ghosts,) = ghosts_for(spec, network.model, data)
    assert ghosts.fade.end == 2 * 5
    rate = plan_for(spec).schedule(15, 5)
    assert rate(9) == 1.0 > rate(10)


def test_ghosts_that_are_kept_for_ever_stay(tosted, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    result, found = rows_by_metric(tosted({"neurons": True, "shape": "constant", "until": "never"}), where, cache)
    assert ("removal_of_neurons", "") not in found
    late, _ = rows_by_metric(tosted({"neurons": True, "shape": "constant", "until": 3}), where, cache)
    assert result.digest == late.digest  # gone after the last step, they have had the same part in the training
    assert result.final["test_loss"] != late.final["test_loss"]


@pytest.mark.parametrize(
    ("tost", "words"),
    [
        ({}, "switch on at least one"),
        ({"smoothing": 0.1, "until": 3}, "needs neurons or skips"),
        ({"neurons": True}, "needs a learning rate that decays"),
        ({"neurons": True, "until": 4}, "epoch 4 is past the training's 3 epochs"),
        ({"neurons": True, "until": "never"}, "needs an end"),
        ({"neurons": True, "until": 1, "stairs": 3}, "has no stairs"),
        ({"neurons": True, "until": 1, "shortcut": "conv"}, "needs skips"),
        ({"neurons": True, "until": 0}, "tost.until"),
        ({"smoothing": 1.0}, "tost.smoothing"),
    ],
)
def test_what_cannot_be_is_said(tost, words, tosted):
    with pytest.raises(BadSpec, match=words):
        tosted(tost)


@pytest.mark.parametrize(
    ("tost", "model", "words"),
    [
        ({"skips": True, "until": 1}, {"depth": 2}, r"3x3 convolutions.*tost.skips = false"),
        ({"neurons": True, "until": 1}, {"depth": 2, "activation": "swish"}, r"nn.ReLU.*tost.neurons = false"),
    ],
)
def test_a_network_without_a_place_for_ghosts_is_named(tost, model, words, tosted, cache):
    with pytest.raises(BadSpec, match=words):
        execute(tosted(tost, model=model), Surroundings(), cache)
