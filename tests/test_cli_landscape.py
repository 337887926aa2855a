"""`sparseflow analyse landscape` on finished runs, end to end."""

from __future__ import annotations

import copy
import csv
from statistics import fmean

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from finished_runs import dense_hessian
from sparseflow.measure import landscape
from sparseflow.report.blocks import Text
from sparseflow.study import DataCache, Surroundings, find_group, reload


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def net_of(words):
    (run,) = find_group(str(words)).runs
    return reload(run, DataCache(Surroundings()))


def whole(batches):
    return [torch.cat(some) for some in zip(*batches, strict=True)]


@pytest.fixture
def no_figures(monkeypatch):
    for name in ("line_figure", "map_figure"):
        monkeypatch.setattr(f"sparseflow.report.landscape.{name}", lambda *_: Text("a figure"))


def test_the_line_goes_along_the_top_eigenvector(analyse, finished, tmp_path):
    folder = finished / "tickets"
    names = ["ticket@0", "random@1"]
    options = ("--points", 5, "--reach", 2, "--examples", 40, "--hessian-examples", 60)
    printed = analyse("landscape", *(f"{folder}:{name}" for name in names), *options, "-o", tmp_path)
    found = rows(tmp_path / "landscape.csv")
    assert [r["network"] for r in found] == [name for name in names for _ in range(5)]
    assert [float(r["x"]) for r in found[:5]] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    for name in names:
        net = net_of(f"{folder}:{name}")
        x, y = whole(net.sample("test", 40))
        _, gradient, matrix = dense_hessian(net, 60)  # leaves the model in float64
        values, vectors = torch.linalg.eigh(matrix)
        vector = vectors[:, -1] * torch.sign(vectors[:, -1] @ gradient)
        line = next(text for text in printed.splitlines() if text.startswith(name))
        assert line.split()[-1] == f"{float(values[-1]):.4g}"
        for row in (r for r in found if r["network"] == name):
            moved, start = copy.deepcopy(net.model), 0
            for weight, mask in net.masks.items():
                count = int(mask.sum())
                moved.get_parameter(weight)[mask] += float(row["x"]) * vector[start : start + count]
                start += count
            assert float(row["loss"]) == pytest.approx(float(F.cross_entropy(moved(x.double()), y)), rel=1e-4)
    page = (tmp_path / "report.html").read_text()
    for word in ("Landscape: ticket@0, random@1", "40 test examples", "<svg", "top eigenvector", "Provenance"):
        assert word in page
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} == {".svg", ".pdf", ".csv"}


def test_random_lines_and_planes_are_the_library_s(analyse, finished, tmp_path):
    name = f"{finished / 'tickets'}:scratch@0"
    net = net_of(name)
    directions = [landscape.random_direction(net.model, net.masks, seed=3, number=k) for k in (0, 1)]
    batches = net.sample("train", 50)
    at = [-0.5, -0.25, 0.0, 0.25, 0.5]
    words = ("landscape", name, "--points", 5, "--reach", 0.5, "--seed", 3, "--split", "train", "--examples", 50)
    printed = analyse(*words, "--view", "plane", "--mode", "train", "-o", tmp_path / "plane")
    plane = landscape.plane(net.model, F.cross_entropy, batches, *directions, at, at, net.masks, batch_norm="train")
    found = np.array([float(r["loss"]) for r in rows(tmp_path / "plane" / "landscape.csv")]).reshape(5, 5)
    np.testing.assert_array_equal(found, np.array(plane.losses))
    ring = np.ones((5, 5), dtype=bool)
    ring[1:-1, 1:-1] = False
    assert f"{found[ring].mean():.4g}" == printed.splitlines()[1].split()[4]
    assert f"{found[ring].mean() - found[2, 2]:.4g}" == printed.splitlines()[1].split()[5]
    analyse(*words, "--view", "random", "-o", tmp_path / "line")
    line = landscape.line(net.model, F.cross_entropy, batches, directions[0], at, net.masks)
    assert [float(r["loss"]) for r in rows(tmp_path / "line" / "landscape.csv")] == list(line.losses)


def test_around_inputs_along_their_own_gradients(analyse, no_figures, finished, tmp_path):
    name = f"{finished / 'tickets'}:rigl set@0"
    words = ("landscape", name, "--view", "input", "--points", 3, "--reach", 4, "--examples", 60)
    analyse(*words, "-o", tmp_path)
    found = rows(tmp_path / "landscape.csv")
    net = net_of(name)
    x, y = whole(net.sample("test", 60))
    model, x = net.model.double(), x.double().requires_grad_(True)
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    length = slope.flatten(1).norm(dim=1)
    some = length > 0
    up = (slope[some] / length[some].view(-1, 1, 1, 1)).detach()
    for row in (r for r in found if float(r["y"]) == 0):
        loss = F.cross_entropy(model(x.detach()[some] + float(row["x"]) * up), y[some])
        assert float(row["loss"]) == pytest.approx(float(loss.detach()), rel=1e-9)
    aside = [float(r["loss"]) for r in found if float(r["x"]) == 0]
    assert aside[0] != aside[1] != aside[2]
    assert f"{int(some.sum())} test examples" in (tmp_path / "report.html").read_text()


def test_what_was_cut_goes_on(analyse, no_figures, finished, tmp_path, monkeypatch):
    words = ("landscape", finished / "single", "--points", 5, "--examples", 30, "--hessian-examples", 40)
    analyse(*words, "-o", tmp_path / "whole")
    looked, original = [], landscape.plane

    def some(*given, **options):
        if len(looked) == limit:
            raise KeyboardInterrupt
        looked.append(given)
        return original(*given, **options)

    monkeypatch.setattr(landscape, "plane", some)
    limit = 3
    assert "goes on" in analyse(*words, "-o", tmp_path / "cut", code=130)
    looked.clear()
    limit = 100
    analyse(*words, "-o", tmp_path / "cut")
    assert len(looked) == 2
    assert rows(tmp_path / "cut" / "landscape.csv") == rows(tmp_path / "whole" / "landscape.csv")
    looked.clear()
    analyse(*words, "-o", tmp_path / "cut")
    assert not looked
    losses = [float(r["loss"]) for r in rows(tmp_path / "cut" / "landscape.csv")]
    assert fmean(losses) > 0


def test_mistakes_are_one_message(analyse, finished, tmp_path):
    name = f"{finished / 'tickets'}:ticket@0"
    for words, said in (
        (("--points", "4"), "--points must be odd and at least 3, so that the network itself is among them, got 4"),
        (("--reach", "0"), "--reach must be positive, got 0"),
        (("--view", "input", "--mode", "train"), "--mode train has no effect on --view input"),
        (("--hessian-examples", "0"), "hessian-examples must be at least 1"),
        (("--examples", "0"), "examples must be at least 1"),
    ):
        assert said in analyse("landscape", name, *words, "-o", tmp_path / "o", code=2)
    assert not (tmp_path / "o").exists()
