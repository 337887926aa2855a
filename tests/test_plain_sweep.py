"""`bench sweep`: the plain script trains the study's networks, and both are run and counted as whole commands."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from data_files import idx_arrays, write_idx
from sparseflow.bench.sweep import PLAIN_SCRIPT, STUDIES, bench_sweep, run_watched, sweep_spec, tree_mib, write_arrays
from sparseflow.cli import main
from sparseflow.core import BadSpec, BadValue, SparseflowError, UnknownName
from sparseflow.study import active_per_layer, cells


class Facts:
    """What cells ask of the data."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.input_size = int(np.prod(shape))


DATA = {"digits": Facts(1, 8, 8), "fashion-mnist": Facts(1, 28, 28)}


@pytest.fixture(scope="module")
def plain():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("plain_sweep", PLAIN_SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> Path:
    """A data root with forty pictures that pass for Fashion-MNIST."""
    root = tmp_path_factory.mktemp("root")
    write_idx(root / "fashion-mnist", idx_arrays(), compressed=True)
    return root


@pytest.mark.parametrize("study", STUDIES)
def test_its_networks_are_the_studys(plain, study):
    """The same active weights, optimisers, penalties, norms, epochs and batches, however often each occurs."""
    data = DATA[study]
    spec = sweep_spec(study, seeds=1)
    theirs = []
    for (settings, weight_decay, batch_norm), seed, width, twin in plain.networks(data.input_size, 10, study, 1):
        counts = counted(plain, data.input_size, width, twin, batch_norm, seed)
        theirs.append((*settings.items(), weight_decay, batch_norm, seed, width, twin, counts))
    ours = []
    for cell in cells(spec, data):
        for pair in cell.pairs:
            for _, run in pair.members():
                counts = tuple(active_per_layer(run, data.shape, 10).values())
                settings = (("name", run.optimizer.name), ("lr", run.optimizer.lr))
                width = run.model.width or data.input_size + 4
                norm = run.model.norm == "batch"
                ours.append((*settings, run.optimizer.weight_decay, norm, run.seed, width, run.mask.twin_width, counts))
                assert run.train.batch_size == plain.BATCH
                assert run.model.depth == plain.DEPTH
                assert (run.model.activation, run.model.skip, run.model.dropout) == ("relu", False, 0)
    assert sorted(map(repr, ours)) == sorted(map(repr, theirs))
    if study == "digits":
        assert plain.STUDIES[study]["epochs"] == spec.train.epochs


def counted(plain, inputs, width, twin, batch_norm, seed) -> tuple[int, ...]:
    """Active weights per layer of the network that the script builds."""
    model, masks = plain.build(inputs, 10, width, twin, batch_norm, seed)
    assert bool(masks) == (twin is not None)
    if masks:
        assert all(not weight[mask == 0].any() for weight, mask in zip(model.weights(), masks, strict=True))
        return tuple(int(mask.sum()) for mask in masks)
    return tuple(weight.numel() for weight in model.weights())


def test_its_training_keeps_the_masks_and_moves_the_rest(plain):
    x, y = np.random.default_rng(0).normal(size=(65, 6)), np.arange(65) % 3
    train_set, test_set = plain.datasets((x, y, x, y), None)
    plain.BATCH, before = 32, plain.BATCH
    try:
        model, masks = plain.build(6, 3, 10, 4, True, 0)
        start = [weight.detach().clone() for weight in model.weights()]
        optimizer = plain.optimizer_for(model, plain.ADAM, 1e-4)
        accuracies = plain.train(model, masks, optimizer, train_set, test_set, 2)
    finally:
        plain.BATCH = before
    assert len(accuracies) == 2
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    for weight, mask, old in zip(model.weights(), masks, start, strict=True):
        assert not weight[mask == 0].any()
        assert (weight != old).sum() > 0.5 * mask.sum()


def test_its_data_are_normalised_per_channel(plain):
    x = np.random.default_rng(0).integers(0, 256, size=(50, 3, 4, 4)).astype(np.uint8)
    (train_set, test_set) = plain.datasets((x, np.arange(50) % 5, x[:10], np.arange(10) % 5), 40)
    assert len(train_set) == 40
    assert len(test_set) == 10
    flat = train_set.tensors[0].view(40, 3, 16)
    assert flat.mean((0, 2)).abs().max() < 1e-5
    assert (flat.std((0, 2), correction=0) - 1).abs().max() < 1e-5


def test_the_script_by_itself(plain, tmp_path, capsys, monkeypatch):
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 256, size=(40, 1, 3, 3)).astype(np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "d.npz", x=x, y=y, x_test=x[:8], y_test=y[:8])
    monkeypatch.setattr(plain, "PARTS", (0.3, 0.7))
    words = ["--study", "fashion-mnist", "--data", str(tmp_path / "d.npz"), "--seeds", "2"]
    plain.main([*words, "--epochs", "1", "--train-limit", "20"])
    said = json.loads(capsys.readouterr().out)
    assert (said["runs"], said["run_epochs"], said["train_examples"]) == (8, 8, 20)
    assert 0 <= said["mean_test_accuracy"] <= 1
    assert said["active"][0] == said["active"][1] == [36, 16, 16, 16, 16]
    plain.main([*words, "--epochs", "0"])
    assert json.loads(capsys.readouterr().out)["run_epochs"] == 0
    with pytest.raises(SystemExit):
        plain.main(["--study", "fashion-mnist"])
    assert isinstance(plain.Net(4, 3, 2, True).norms[0], nn.BatchNorm1d)


def test_its_digits_are_as_many_as_the_studys(plain):
    x, y, x_test, y_test = plain.digits()
    assert (len(x), len(y), len(x_test), len(y_test)) == (1437, 1437, 360, 360)


@pytest.mark.slow  # half a minute: three whole commands
def test_a_whole_sweep(fashion, monkeypatch, capsys):
    words = ["sweep", "--study", "fashion-mnist", "--epochs", "1", "--seeds", "1", "--train-limit", "30"]
    words += ["--jobs", "1", "--data-root", str(fashion), "--points", "1", "--rounds", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["sparseflow", "bench", *words])
    with contextlib.suppress(SystemExit):
        main()
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [row["implementation"] for row in rows] == ["plain script", "sparseflow, 1 job"]
    case = "sweep fashion-mnist: 10 runs of 1 epoch, 30 training examples, 1 measuring points"
    assert all(row["case"] == case and row["median_ms"] > 0 and row["spread_ms"] is None for row in rows)
    assert "run-epochs per second" in said.err
    assert "starting, reading and building alone" in said.err


def test_the_rival_must_train_as_much(fashion, tmp_path):
    lazy = tmp_path / "lazy.py"
    options = {"epochs": 1, "seeds": 1, "train_limit": 30, "data_root": str(fashion), "jobs": (1,), "plain": lazy}
    lazy.write_text("print('{\"run_epochs\": 3}')")
    with pytest.raises(SparseflowError, match="3 run-epochs, the study has 10"):
        bench_sweep("fashion-mnist", **options)
    lazy.write_text("print('done')")
    with pytest.raises(SparseflowError, match="line of JSON"):
        bench_sweep("fashion-mnist", **options)
    lazy.write_text("raise ValueError('no data here')")
    with pytest.raises(SparseflowError, match="no data here"):
        bench_sweep("fashion-mnist", **options)


def test_sweeps_refuse_what_cannot_be(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        bench_sweep("digit")
    with pytest.raises(BadValue, match="run from a checkout, or pass --plain"):
        bench_sweep("digits", plain=tmp_path / "none.py")
    with pytest.raises(BadValue, match="rounds"):
        bench_sweep("digits", rounds=0)
    with pytest.raises(BadValue, match="jobs"):
        bench_sweep("digits", jobs=(0,))
    with pytest.raises(BadSpec, match="epochs"):
        sweep_spec("digits", epochs=0)


def test_what_is_swept():
    digits, fashion = sweep_spec("digits"), sweep_spec("fashion-mnist")
    assert (digits.train.epochs, digits.measure.points, digits.data.train_limit) == (50, 11, None)
    assert (fashion.train.epochs, fashion.measure.points, fashion.data.train_limit) == (1, 0, None)
    (cell,) = cells(fashion, DATA["fashion-mnist"])
    assert {(p.dense_width, p.seed) for p in cell.pairs} == {(w, s) for w in (79, 236, 394, 552, 709) for s in range(3)}
    changed = sweep_spec("fashion-mnist", epochs=2, train_limit=70, seeds=4, points=5)
    assert (changed.train.epochs, changed.data.train_limit, changed.compare.seeds) == (2, 70, 4)
    assert changed.measure.points == 5


def test_arrays_are_the_studys_own_examples(cache, small, tmp_path):
    data = cache.prepared(small())
    write_arrays(tmp_path / "a.npz", data)
    with np.load(tmp_path / "a.npz") as found:
        assert np.array_equal(found["x"], data.train.x.numpy())
        assert np.array_equal(found["y_test"], data.test.y.numpy())


def test_a_command_is_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    ask = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.getcwd())"
    assert run_watched([sys.executable, "-c", ask], tmp_path).printed == f"None {tmp_path}\n"
    assert run_watched([sys.executable, "-c", ask], tmp_path, threads=1).printed.startswith("1 ")
    # Its memory is its children's too.
    child = "import time; x = bytearray(60_000_000); x[::4096] = x[::4096]; time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ran = run_watched([sys.executable, "-c", parent], tmp_path)
    assert ran.seconds > 0
    assert not ran.peak_mib < 57
    with pytest.raises(SparseflowError, match="status 3"):
        run_watched([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_memory_of_no_process_is_unknown():
    assert not tree_mib(2**30) > 0
