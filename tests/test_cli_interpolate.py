"""`sparseflow analyse interpolate` on finished runs, end to end."""

from __future__ import annotations

import csv
from math import sqrt

import numpy as np
import pytest
import torch

from finished_runs import make_single
from sparseflow.report.blocks import Text
from sparseflow.study import DataCache, Surroundings, find_group, reload


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def net_of(words):
    (run,) = find_group(str(words)).runs
    return reload(run, DataCache(Surroundings()))


def loss_at(state, batches, statistics=None):
    """(loss, accuracy) of the network of a state by its equations; batch statistics of each layer where given."""
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def through(x, means):
        h = x.double().flatten(1).numpy()
        for k in (0, 1):
            z = h @ state[f"linears.{k}.weight"].T
            mean, var = means[k] if means else (z.mean(0), z.var(0, ddof=1))
            seen.append((z.mean(0), z.var(0, ddof=1)))
            used = (mean, var) if means else (z.mean(0), z.var(0))
            z = (z - used[0]) / np.sqrt(used[1] + 1e-5)
            h = np.maximum(z * state[f"norms.{k}.weight"] + state[f"norms.{k}.bias"], 0)
        return h @ state["output.weight"].T

    seen: list = []
    if statistics is None:
        means = [(state[f"norms.{k}.running_mean"], state[f"norms.{k}.running_var"]) for k in (0, 1)]
    else:
        for inputs, _ in statistics:
            through(inputs, None)
        means = [tuple(np.mean([one[part] for one in seen[k::2]], 0) for part in (0, 1)) for k in (0, 1)]
    out = through(x, means)
    losses = np.log(np.exp(out - out.max(1, keepdims=True)).sum(1)) + out.max(1) - out[np.arange(len(y)), y]
    return losses.mean(), (out.argmax(1) == y.numpy()).mean()


def mixed(first, second, alpha):
    a, b = (net.model.state_dict() for net in (first, second))
    return {name: ((1 - alpha) * a[name].double() + alpha * b[name].double()).numpy() for name in a}


@pytest.mark.parametrize("batch_norm", ["keep", "recompute"])
def test_losses_on_the_way_are_those_of_the_mixed_weights(analyse, finished, tmp_path, batch_norm):
    folder = finished / "tickets"
    names = (f"{folder}:scratch", f"{folder}:ticket@1", f"{folder}:pruned@0")
    printed = analyse("interpolate", *names, "--points", 5, "--batch-norm", batch_norm, "-o", tmp_path)
    found = rows(tmp_path / "interpolate.csv")
    target = net_of(names[-1])
    batches = target.sample("train")
    labels = ["scratch@0", "scratch@1", "ticket@1"]
    assert list(dict.fromkeys(r["network"] for r in found)) == [*labels, *(f"{label}#start" for label in labels)]
    at_zero = {}
    for row in found:
        state = mixed(net_of(f"{folder}:{row['network']}"), target, float(row["alpha"]))
        loss, accuracy = loss_at(state, batches, batches if batch_norm == "recompute" else None)
        assert float(row["loss"]) == pytest.approx(loss, rel=2e-5)
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-9)
        if row["alpha"] == "0.0":
            at_zero[row["network"]] = float(row["loss"])
    assert [r["alpha"] for r in found][:5] == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    ends = [at_zero["scratch@0"], at_zero["scratch@1"]]
    spread = abs(ends[0] - ends[1]) / sqrt(2)
    assert f"{sum(ends) / 2:.4f} ± {spread:.4f}" in printed
    barriers = []
    for name in ("scratch@0", "scratch@1"):
        losses = [float(r["loss"]) for r in found if r["network"] == name]
        line = np.linspace(losses[0], losses[-1], 5)
        barriers.append(max(np.array(losses) - line))
    (row,) = [line for line in printed.splitlines() if line.split()[:2] == ["scratch", "final"]]
    assert f"{np.mean(barriers):.4f} ± " in row
    assert "Paths to pruned@0" in (tmp_path / "report.html").read_text()
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".svg", ".pdf", ".csv"}


@pytest.fixture
def no_figure(monkeypatch):
    monkeypatch.setattr("sparseflow.report.interpolate.interpolate_figure", lambda *_: Text("a figure"))


def test_ranges_splits_and_what_was_cut(analyse, no_figure, finished, tmp_path, monkeypatch):
    names = [f"{finished / 'tickets'}:{name}" for name in ("ticket@0", "random@0", "pruned@0")]
    words = ("interpolate", *names, "--range", "-0.5,1.5", "--points", 5, "--split", "test", "--examples", 30)
    printed = analyse(*words, "--no-start", "-o", tmp_path / "whole")
    found = rows(tmp_path / "whole" / "interpolate.csv")
    assert [float(r["alpha"]) for r in found[:5]] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    target = net_of(names[-1])
    loss, _ = loss_at(mixed(target, target, 0.5), target.sample("test", 30))
    assert {r["loss"] for r in found if r["alpha"] == "1.0"} == {found[3]["loss"]}
    assert float(found[3]["loss"]) == pytest.approx(loss, rel=2e-5)
    assert "30 test examples" in (tmp_path / "whole" / "report.html").read_text()
    assert "–" not in printed
    walked = []
    from sparseflow.study import paths

    original = paths.interpolate

    def one(*given, **options):
        if walked:
            raise KeyboardInterrupt
        walked.append(1)
        return original(*given, **options)

    monkeypatch.setattr(paths, "interpolate", one)
    assert "goes on" in analyse(*words, "--no-start", "-o", tmp_path / "cut", code=130)
    walked.clear()
    analyse(*words, "--no-start", "-o", tmp_path / "cut")
    assert len(walked) == 1
    assert rows(tmp_path / "cut" / "interpolate.csv") == found


def test_mistakes_are_one_message(analyse, finished, small_npz, tmp_path):
    ticket, target = (f"{finished / 'tickets'}:{name}" for name in ("ticket@0", "pruned@0"))
    plain = {"depth": 2, "width": 8, "activation": "relu"}
    for name, seed in (("plain", 5), ("other", 6)):
        make_single(tmp_path / name, small_npz, model=plain, seed=seed)
    for words, said in (
        ((ticket,), "last, the one network they lead to"),
        ((ticket, f"{finished / 'tickets'}:pruned"), "last, the one network they lead to"),
        ((ticket, tmp_path / "plain"), "is of another architecture than plain"),
        ((tmp_path / "other", tmp_path / "plain", "--batch-norm", "recompute"), "has no batch normalisation"),
        ((ticket, target, "--range", "1,0"), "--range takes LOW,HIGH, the lower one first, got '1,0'"),
        ((ticket, target, "--examples", "0"), "examples must be at least 1"),
    ):
        assert said in analyse("interpolate", *words, "-o", tmp_path / "o", code=2)
