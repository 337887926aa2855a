"""`sparseflow analyse similarity` and `activations` on finished runs, end to end."""

from __future__ import annotations

import csv
from collections import defaultdict
from itertools import combinations, permutations
from math import log

import numpy as np
import pytest
import torch

from finished_runs import make_single
from sparseflow.report.blocks import Text
from sparseflow.study import DataCache, Surroundings, find_group, reload


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def nets(words):
    cache = DataCache(Surroundings())
    return [reload(run, cache) for run in find_group(str(words)).runs]


def forward(net, which, examples=None):
    """(probabilities, activations of every layer, targets) in float64, by the network's equations."""
    state = {name: value.double().numpy() for name, value in net.model.state_dict().items()}
    x, y = (torch.cat(parts) for parts in zip(*net.sample(which, examples), strict=True))
    h, layers = x.double().flatten(1).numpy(), []
    for k in (0, 1):
        z = h @ state[f"linears.{k}.weight"].T
        norm = {name: state[f"norms.{k}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
        z = (z - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        h = np.maximum(z, 0)
        layers.append(h)
    out = h @ state["output.weight"].T
    p = np.exp(out - out.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), layers, y.numpy()


def weights(net, masks):
    state = net.model.state_dict()
    return np.concatenate([state[name][mask].double().numpy() for name, mask in masks.items()])


def quantities(out):
    found = defaultdict(dict)
    for row in rows(out / "similarity.csv"):
        found[row["group"]][row["quantity"]] = float(row["mean"])
    return found


def kl(p, q):
    return float((p * np.log(p / q)).sum(1).mean())


def jsd(*ps):
    mean = sum(ps) / len(ps)
    return sum(kl(p, mean) for p in ps) / len(ps)


def test_every_number_by_the_definitions(analyse, finished, tmp_path):
    folder = finished / "tickets"
    names = (f"{folder}:pruned@0", f"{folder}:ticket", f"{folder}:random", f"{folder}:pruned")
    printed = analyse("similarity", *names[1:], "--reference", names[0], "-o", tmp_path)
    assert f"report: {tmp_path / 'report.html'}" in printed
    found = quantities(tmp_path)
    (pruned,) = nets(names[0])
    reference, _, y = forward(pruned, "test")
    start_of = dict(zip(names, ("", f"{folder}:ticket#start", f"{folder}:random#start", ""), strict=True))
    assert list(found) == ["ticket", "random", "pruned"]
    for name, group in zip(names[1:3], found.values(), strict=False):
        each = nets(name)
        p = [forward(net, "test")[0] for net in each]
        said = [probabilities.argmax(1) for probabilities in p]
        assert group["accuracy"] == pytest.approx(np.mean([(a == y).mean() for a in said]))
        assert group["ensemble"] == pytest.approx((sum(p).argmax(1) == y).mean())
        assert group["disagreement"] == pytest.approx(np.mean([(a != b).mean() for a, b in combinations(said, 2)]))
        from_it = [(a != reference.argmax(1)).mean() for a in said]
        assert group["reference_disagreement"] == pytest.approx(np.mean(from_it))
        assert group["kl"] == pytest.approx(np.mean([kl(a, b) for a, b in permutations(p, 2)]), rel=1e-4)
        assert group["to_reference"] == pytest.approx(np.mean([kl(a, reference) for a in p]), rel=1e-4)
        assert group["from_reference"] == pytest.approx(np.mean([kl(reference, a) for a in p]), rel=1e-4)
        assert group["jsd"] == pytest.approx(jsd(*p), rel=1e-4)
        assert group["jsd"] <= log(2)
        assert group["reference_jsd"] == pytest.approx(np.mean([jsd(a, reference) for a in p]), rel=1e-4)
        own = weights(pruned, pruned.masks)
        for moment, some in (("final", each), ("start", nets(start_of[name]))):
            lengths = [np.linalg.norm(weights(net, pruned.masks) - own) for net in some]
            assert group[f"{moment}_distance"] == pytest.approx(np.mean(lengths))
        shared = [
            sum(int((m & pruned.masks[n]).sum()) for n, m in net.masks.items())
            / sum(int((m | pruned.masks[n]).sum()) for n, m in net.masks.items())
            for net in each
        ]
        assert group["mask_overlap"] == pytest.approx(np.mean(shared))
    assert found["ticket"]["mask_overlap"] == 1.0
    other = forward(nets(f"{folder}:pruned@1")[0], "test")[0]  # the reference itself is left out of its group
    assert found["pruned"]["reference_disagreement"] == (other.argmax(1) != reference.argmax(1)).mean()
    assert found["pruned"]["disagreement"] == found["pruned"]["reference_disagreement"]
    distances = rows(tmp_path / "distances.csv")
    assert [r["network"] for r in distances][:3] == ["pruned@0", "ticket@0", "ticket@1"]
    assert "pruned@1#start" in distances[0]
    embedded = rows(tmp_path / "figures" / "embedding.csv")
    assert [r["network"] for r in embedded] == [r["network"] for r in distances]
    assert float(distances[0]["ticket@1"]) == float(embedded[2]["distance_to_reference"])
    page = (tmp_path / "report.html").read_text()
    for word in ("Similarity with pruned@0", "<svg", "Ensembles and disagreement", "Provenance"):
        assert word in page


@pytest.fixture
def no_figures(monkeypatch):
    for name in ("similarity.embedding_figure", "similarity.distance_figure"):
        monkeypatch.setattr(f"sparseflow.report.{name}", lambda found, folder: Text("a figure"))
    monkeypatch.setattr("sparseflow.report.activations.activations_figure", lambda found, folder, n: Text("a figure"))


def test_sums_a_part_of_the_test_set_and_no_beginnings(analyse, no_figures, finished, tmp_path):
    names = (f"{finished / 'tickets'}:ticket@0", f"{finished / 'tickets'}:scratch@1")
    analyse("similarity", *names, "--over", "sum", "--examples", "30", "--no-start", "-o", tmp_path)
    found = quantities(tmp_path)
    (one, _, _), (other, _, _) = (forward(nets(name)[0], "test", 30) for name in names)
    assert found["scratch@1"]["to_reference"] == pytest.approx(30 * kl(other, one), rel=1e-4)
    assert "to_reference" not in found["ticket@0"]
    assert [r["network"] for r in rows(tmp_path / "distances.csv")] == ["ticket@0", "scratch@1"]
    assert "30 test examples; reference ticket@0" in (tmp_path / "report.html").read_text()


def test_networks_that_cannot_be_compared(analyse, finished, small_npz, tmp_path):
    name = f"{finished / 'tickets'}:ticket@0"
    wide = {"depth": 2, "width": 9, "norm": "batch", "activation": "relu"}
    make_single(tmp_path / "wide", small_npz, model=wide)
    said = analyse("similarity", name, tmp_path / "wide", "-o", tmp_path / "o", code=2)
    assert "wide is of another architecture than ticket@0 (linears.0.weight: (9, 108) and (8, 108))" in said
    make_single(tmp_path / "digits", small_npz, data={"name": "digits", "train_limit": 40})
    assert "architecture" in analyse("similarity", name, tmp_path / "digits", "-o", tmp_path / "o", code=2)
    said = analyse("similarity", name, "--reference", f"{finished / 'tickets'}:pruned", "-o", tmp_path / "o", code=2)
    assert "--reference takes one network" in said
    said = analyse("similarity", name, "--examples", "0", "-o", tmp_path / "o", code=2)
    assert "examples must be at least 1" in said


def test_zeros_by_an_independent_forward_pass(analyse, finished, tmp_path):
    folder = finished / "tickets"
    printed = analyse("activations", f"{folder}:ticket", finished / "single", "--split", "train", "-o", tmp_path)
    found = {(r["network"], r["layer"]): r for r in rows(tmp_path / "activations.csv")}
    assert len(found) == 6
    shares = {}
    for net in [*nets(f"{folder}:ticket"), *nets(finished / "single")]:
        _, layers, _ = forward(net, "train")
        for k, h in enumerate(layers):
            row = found[net.label, f"activations.{k}"]
            assert (int(row["zeros"]), int(row["values"])) == (int((h == 0).sum()), h.size)
            assert row["group"] == net.label.partition("@")[0]
            shares[net.label, k] = float(row["share"])
    mean = (shares["ticket@0", 0] + shares["ticket@1", 0]) / 2
    assert printed.splitlines()[1].split()[:2] == ["activations.0", f"{100 * mean:.2f}"]
    page = (tmp_path / "report.html").read_text()
    for word in ("Activation sparsity: ticket, single", "160 training examples", "<svg", "Provenance"):
        assert word in page


def test_stages_and_what_is_there_already(analyse, no_figures, finished, tmp_path, monkeypatch):
    name = finished / "single"
    analyse("activations", name, "--examples", "50", "-o", tmp_path)
    layers = rows(tmp_path / "activations.csv")
    assert {int(r["values"]) for r in layers} == {50 * 8}
    monkeypatch.setattr("sparseflow.study.zeros.activation_zeros", lambda *_: pytest.fail("counted twice"))
    analyse("activations", name, "--examples", "50", "--stages", "activations", "-o", tmp_path)
    (row,) = rows(tmp_path / "activations.csv")
    assert int(row["zeros"]) == sum(int(r["zeros"]) for r in layers)
    said = analyse("activations", name, "--examples", "50", "--stages", "layer1", "-o", tmp_path, code=2)
    assert "no layer is of the stage 'layer1' (there are: activations.0, activations.1)" in said
