"""A training that is stopped, killed or resumed ends bit for bit where an unbroken one ends."""

from __future__ import annotations

import itertools

import pytest
import torch

from sparseflow.study import Surroundings, execute
from sparseflow.train import checkpoint, optimizers

HARD = {
    "model": {"norm": "batch", "dropout": 0.3, "activation": "prelu"},
    "data": {"augment": True, "val_fraction": 0.2},
    "optimizer": {"schedule": {"name": "cosine", "warmup_epochs": 1}, "l1": 1e-4, "weight_decay": 1e-3},
    "train": {"epochs": 4},
}


def run(spec, folder, cache, stops=()):
    """Execute, stopping (and starting again) after each of `stops` epochs; all rows and the last result."""
    rows: dict = {}

    def emit(new):
        rows.update({(step, metric, layer): value for step, _, metric, layer, value in new})

    where = Surroundings(checkpoints=folder)
    for epochs in stops:
        counter = itertools.count(1)
        stopped = execute(spec, where, cache, emit, lambda counter=counter, n=epochs: next(counter) >= n)
        assert stopped.status == "stopped"
    return rows, execute(spec, where, cache, emit)


@pytest.mark.parametrize("execution", ["masked", "compact"])
@pytest.mark.parametrize("optimizer", optimizers.names)
def test_stopped_twice_equals_unbroken(optimizer, execution, small, cache, tmp_path):
    hard = {**HARD, "optimizer": {**HARD["optimizer"], "name": optimizer, "lr": 0.01}}
    spec = small(**hard, mask={"execution": execution})
    whole_rows, whole = run(spec, tmp_path / "a", cache)
    rows, result = run(spec, tmp_path / "b", cache, stops=(1, 2))
    assert result.digest == whole.digest != ""
    assert result.final == whole.final
    assert rows == whole_rows
    assert result.training_flops == whole.training_flops
    assert not result.mixed


def test_a_resume_under_another_fingerprint_is_marked(small, cache, tmp_path, monkeypatch):
    spec = small(train={"epochs": 3})
    where = Surroundings(checkpoints=tmp_path)
    execute(spec, where, cache, should_stop=lambda: True)
    monkeypatch.setattr("sparseflow.study.run.fingerprint", lambda device, threads: "another machine")
    result = execute(spec, where, cache)
    assert result.mixed
    assert result.fingerprint == "another machine"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-100], lambda b: b"", lambda b: bytes(len(b)), lambda b: b"\x80\x04junk."]
)
def test_a_damaged_checkpoint_is_not_trusted(damage, small, cache, tmp_path):
    spec = small(train={"epochs": 3})
    where = Surroundings(checkpoints=tmp_path)
    whole = execute(spec, where, cache)
    execute(spec, where, cache, should_stop=lambda: True)
    path = where.resume_path(spec.name)
    path.write_bytes(damage(path.read_bytes()))
    result = execute(spec, where, cache)
    assert result.digest == whole.digest
    assert result.resumed_at == 0
    assert "damaged checkpoint" in result.notes[-1]
    assert path.with_suffix(".bad").is_file()


def test_another_runs_checkpoint_is_ignored(small, cache, tmp_path):
    where = Surroundings(checkpoints=tmp_path)
    first, second = small(seed=0, train={"epochs": 3}), small(seed=1, train={"epochs": 3})
    execute(first, where, cache, should_stop=lambda: True)
    where.resume_path(first.name).rename(where.resume_path(second.name))
    assert execute(second, where, cache).digest == execute(second, Surroundings(), cache).digest


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"x": torch.ones(3)})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"x": torch.zeros(3)})
    assert torch.equal(checkpoint.load(path)["x"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_are_written_while_training(small, cache, tmp_path, monkeypatch):
    spec = small(train={"epochs": 3})
    seen = []
    monkeypatch.setattr(checkpoint, "save", lambda path, content: seen.append(content["epoch"]))
    execute(spec, Surroundings(checkpoints=tmp_path, checkpoint_seconds=0.0), cache)
    assert seen == [1, 2, 3]


def test_optimizer_implementations_agree(small, cache):
    finals = {}
    for how in ("plain", "foreach", "fused"):
        spec = small(optimizer={"name": "adam", "lr": 0.01, "implementation": how}, train={"dtype": "float64"})
        finals[how] = execute(spec, Surroundings(), cache).final["train_loss"]
    assert finals["foreach"] == pytest.approx(finals["plain"], rel=1e-9)
    assert finals["fused"] == pytest.approx(finals["plain"], rel=1e-9)
