"""`sparseflow analyse hessian` on finished runs, end to end."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from finished_runs import dense_hessian
from sparseflow.measure import Hessian, curvature
from sparseflow.report.blocks import Text
from sparseflow.study import DataCache, Surroundings, find_group, reload

FEW = ("--probes", "3", "--steps", "12", "--top", "2", "--bottom", "1", "--examples", "60")
NAMES = ["ticket@0", "rigl set@1#start"]


@pytest.fixture
def no_figures(monkeypatch):
    for name in ("spectrum_figure", "ends_figure"):
        monkeypatch.setattr(f"sparseflow.report.hessian.{name}", lambda found, folder: Text("a figure"))


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def numbers(out):
    """network -> quantity -> values."""
    found = defaultdict(lambda: defaultdict(list))
    for row in rows(out / "hessian.csv"):
        found[row["network"]][row["quantity"]].append(float(row["value"]))
    return found


def network(words):
    (run,) = find_group(str(words)).runs
    return reload(run, DataCache(Surroundings()))


def test_the_numbers_are_those_of_the_dense_hessian(analyse, finished, tmp_path):
    out, folder = tmp_path / "o", finished / "tickets"
    printed = analyse(
        "hessian", f"{folder}:ticket@0", f"{folder}:rigl set@1#start", "--exact", *FEW, "--rate", "0.3", "-o", out
    )
    found = numbers(out)
    assert list(found) == NAMES
    for label, own in found.items():
        net = network(f"{folder}:{label}")
        loss, g, matrix = dense_hessian(net, 60)
        values = np.linalg.eigvalsh(matrix.numpy())
        norm = abs(values).max()
        exact = [float(r["eigenvalue"]) for r in rows(out / "eigenvalues.csv") if r["network"] == label]
        np.testing.assert_allclose(exact, values, atol=1e-9 * norm)
        np.testing.assert_allclose(own["top_eigenvalue"], values[[-1, -2]], atol=1e-6 * norm)
        np.testing.assert_allclose(own["bottom_eigenvalue"], values[:1], atol=1e-6 * norm)
        assert own["active_weights"] == [len(values)] == [net.active]
        assert own["trace"] == pytest.approx([float(matrix.trace())], abs=1e-9 * norm)
        assert own["share_below_0"] == [float((values < -1e-3 * norm).mean())]
        assert own["loss"] == pytest.approx([loss], rel=1e-9)
        assert own["predicted_first"] == pytest.approx([-0.3 * float(g @ g)], rel=1e-8)
        assert own["predicted_second"] == pytest.approx([0.045 * float(g @ matrix @ g)], rel=1e-8)
        vector = torch.linalg.eigh(matrix).eigenvectors[:, -1]
        assert abs(own["top_cosine"][0]) == pytest.approx(abs(float(vector @ g / g.norm())), abs=1e-4)
        quadrature = curvature.quadrature(curvature.Matrix(matrix), probes=3, steps=12)
        taken = {r["part"]: r for r in rows(out / "cost.csv") if r["network"] == label}
        assert {part: int(r["products"]) for part, r in taken.items()} == {
            "ends": int(taken["ends"]["timed"]), "quadrature": quadrature.products, "exact": len(values),
        }  # fmt: skip
        assert all(float(r["processor_seconds"]) > 0 and int(r["size"]) == len(values) for r in taken.values())
        smooth = curvature.density(exact)
        apart = curvature.distance(quadrature.density(at=smooth.at, width=smooth.width), smooth)
        assert f"{apart:.2g} apart in L1" in (out / "report.html").read_text()
    assert f"report: {out / 'report.html'}" in printed
    assert not list(out.glob("*.npy"))
    assert {p.suffix for p in (out / "figures").iterdir()} == {".svg", ".pdf", ".csv"}
    page = (out / "report.html").read_text()
    for word in ("Hessian: ticket@0, rigl set@1#start", "<svg", "standard errors away", "Provenance", "made_with"):
        assert word in page
    drawn = rows(out / "figures" / "spectrum.csv")
    assert {(r["network"], r["by"]) for r in drawn} == {(n, by) for n in found for by in ("exact", "quadrature")}


def test_quadrature_and_mode_are_the_library_s(analyse, no_figures, finished, tmp_path):
    name = f"{finished / 'tickets'}:scratch@0"
    analyse("hessian", name, *FEW, "--mode", "train", "--dtype", "float32", "--seed", "4", "-o", tmp_path)
    net = network(name)
    batches = net.sample("train", 60)
    h = Hessian(net.model, F.cross_entropy, batches, net.masks, batch_norm="train")
    wanted = curvature.quadrature(h, probes=3, steps=12, seed=4)
    (own,) = numbers(tmp_path).values()
    assert own["trace"] == pytest.approx([wanted.trace().value], rel=1e-5)
    assert [float(r["error"]) for r in rows(tmp_path / "hessian.csv") if r["quantity"] == "trace"] == pytest.approx(
        [wanted.trace().error], rel=1e-4
    )
    assert own["rate"] == [0.05]
    assert own["loss"] == pytest.approx([h.value])
    evaluated = Hessian(net.model, F.cross_entropy, batches, net.masks)
    assert own["loss"] != pytest.approx([evaluated.value], rel=1e-3)
    assert not (tmp_path / "eigenvalues.csv").exists()


class Counter:
    """Counts products by their columns; raises an interrupt at the call after `limit`."""

    def __init__(self, monkeypatch):
        self.calls, self.limit = [], 10**6
        original = Hessian.matmat

        def counted(hessian, vectors):
            if len(self.calls) == self.limit:
                raise KeyboardInterrupt
            self.calls.append(vectors.shape[1])
            return original(hessian, vectors)

        monkeypatch.setattr(Hessian, "matmat", counted)

    def restart(self, limit=10**6):
        taken, self.calls, self.limit = sum(self.calls), [], limit
        return taken


def test_what_was_cut_goes_on_and_nothing_is_computed_twice(analyse, no_figures, finished, tmp_path, monkeypatch):
    words = (finished / "single", "--exact", *FEW)
    count = Counter(monkeypatch)
    analyse("hessian", *words, "-o", tmp_path / "whole")
    blocks, calls = count.calls.count(32), len(count.calls)
    every, cut = count.restart(), tmp_path / "cut"
    assert blocks >= 5
    spent = 0
    for limit in (calls - blocks - 7, blocks // 2 + 12, 2):  # during the last probe, and twice within the matrix
        count.restart(limit)
        assert "the same command goes on" in analyse("hessian", *words, "-o", cut, code=130)
        spent += count.restart()
    with (cut / "parts.jsonl").open("a") as file:
        file.write('{"part": "3')  # killed while it wrote
    (matrix,) = cut.glob("*.npy")
    whole_rows = matrix.stat().st_size
    with matrix.open("r+b") as file:
        file.truncate(whole_rows - 5)
    analyse("hessian", *words, "-o", cut)
    spent += count.restart()
    assert 0 <= spent - every < 12 + 32  # what the first cut and the damage met
    for name in ("hessian.csv", "eigenvalues.csv"):
        assert (cut / name).read_text() == (tmp_path / "whole" / name).read_text()
    (matrix,) = (r for r in rows(cut / "cost.csv") if r["part"] == "exact")
    assert 0 < int(matrix["timed"]) < int(matrix["products"])
    assert not list(cut.glob("*.npy"))
    analyse("hessian", *words, "-o", cut)
    assert not count.calls


def test_mistakes_are_one_message(analyse, finished, tmp_path):
    name = f"{finished / 'tickets'}:ticket@0"
    for words, said in (
        ((name, "--examples", "0"), "examples must be at least 1"),
        ((name, "--top", "100", "--bottom", "100"), "asked for 100 + 100 eigenvalues of a matrix that has 192"),
        ((name, "--top", "0", "--bottom", "0"), "top + bottom must be at least 1"),
        ((name, "--rate", "-1"), "rate must not be negative"),
        ((name, "--device", "cuda:x"), "device must be cpu, cuda or cuda:N"),
        ((f"{finished}:x",), "no results.db here"),
        ((name, name), "is named twice"),
    ):
        assert said in analyse("hessian", *words, "-o", tmp_path / "o", code=2)
    shutil.copytree(finished / "single", tmp_path / "study")
    assert "give the analysis another --out" in analyse("hessian", name, "-o", tmp_path / "study", code=2)
