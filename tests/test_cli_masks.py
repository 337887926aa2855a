"""`sparseflow prune` and `sparseflow masks`, end to end."""

from __future__ import annotations

import csv
import sys

import pytest
import torch

from sparseflow.cli import main
from sparseflow.masks import load, prune, save
from sparseflow.study import RunSpec, build, validate

NET = ("--set", "model.depth=2", "--set", "model.width=12")
SHAPE = ("--input-shape", "1,8,8", "--classes", "10")


@pytest.fixture
def sparseflow(monkeypatch, capsys):
    def call(*words, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["sparseflow", *map(str, words)])
        ended = 0
        try:
            main()
        except SystemExit as end:  # typer ends --help so
            ended = end.code or 0
        said = capsys.readouterr()
        assert ended == code, said
        return said.err if code else said.out

    return call


def dense(seed=0, **sections):
    spec = validate(RunSpec, {"model": {"name": "mlp", "depth": 2, "width": 12}, "seed": seed, **sections})
    return build(spec, (1, 8, 8), 10).model


def test_prune_masks_the_weights_that_a_run_of_that_seed_starts_from(sparseflow, tmp_path):
    out = tmp_path / "m.safetensors"
    printed = sparseflow("prune", "mlp", *NET, "-c", "magnitude", "-d", "0.1", *SHAPE, "--seed", "3", "-o", out)
    model = dense(seed=3)
    masks, made = load(out, model)
    wanted = prune(model, "magnitude", 0.1, seed=3)
    assert all(torch.equal(masks[name], mask) for name, mask in wanted.items())
    assert (made.model, made.criterion, made.budget, made.density, made.seed) == ("mlp", "magnitude", "global", 0.1, 3)
    assert "12x64" in printed
    assert f"masks: {out}" in printed
    assert sum(int(mask.sum()) for mask in masks.values()) == 103
    assert "103" in printed.splitlines()[4]


def test_prune_scores_on_data_and_says_so(sparseflow, tmp_path):
    out = tmp_path / "m.safetensors"
    words = ("prune", "mlp", *NET, "-c", "snip", "-d", "0.2", "--data", "digits", "--budget", "erk", "-o", out)
    sparseflow(*words, "--examples", "70", "--batch-size", "32", "--dense", "output*")
    masks, made = load(out, dense())
    assert made.data == "digits"
    assert len(made.data_digest) > 8
    assert made.options == {"examples": 70, "batch_size": 32, "dense": ["output*"]}
    assert masks["output.weight"].all()
    again = tmp_path / "again.safetensors"
    sparseflow(*words[:-1], again, "--examples", "70", "--batch-size", "32", "--dense", "output*")
    assert all(torch.equal(load(again)[0][name], mask) for name, mask in masks.items())


def test_rounds_options_and_exclusions_reach_the_criterion(sparseflow, tmp_path):
    out = tmp_path / "m.safetensors"
    words = ("prune", "mlp", *NET, "-c", "synflow", "-d", "0.1", *SHAPE, "--rounds", "5", "-o", out)
    sparseflow(*words, "--option", "dtype=float32", "--exclude", "output*")
    masks, made = load(out)
    assert list(masks) == ["linears.0.weight", "linears.1.weight"]
    assert made.rounds == 5
    assert made.options == {"dtype": "float32", "exclude": ["output*"]}
    wanted = prune(dense(), "synflow", 0.1, rounds=5, exclude="output*", input_shape=(1, 8, 8), dtype="float32")
    assert all(torch.equal(masks[name], mask) for name, mask in wanted.items())
    assert "dense, no mask" in sparseflow("masks", out)


def test_a_model_of_ones_own(sparseflow, tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\ndef small():\n    return nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 4))\n"
        "\ndef number():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("-c", "magnitude", "-d", "0.25,0.5", "-o", "m.safetensors")
    printed = sparseflow("prune", "my_nets:small", *words)
    assert "which weights lie on paths is not known: the shape of the inputs is not given" in printed
    masks, made = load("m.safetensors")
    assert (made.model, made.budget, made.density) == ("my_nets:small", "vector", [0.25, 0.5])
    assert [int(mask.sum()) for mask in masks.values()] == [144, 18]
    assert "give --model my_nets:small" in sparseflow("masks", "m.safetensors")
    assert "unreachable" in sparseflow("masks", "m.safetensors", "--model", "my_nets:small", "--input-shape", "64")
    sys.modules.pop("my_nets")
    weights = {name: value * 0 + 1 for name, value in made_by_hand(tmp_path).items()}
    weights["0.weight"][0] = 5
    torch.save(weights, "w.pt")
    sparseflow("prune", "my_nets:small", "-c", "magnitude", "-d", "0.1", "--weights", "w.pt", "-o", "m.safetensors")
    assert load("m.safetensors")[0]["0.weight"][0].sum() == 60  # of 61, the last layer keeps one
    for name, words in (
        ("my_nets:big", "has no function or class 'big' (it has: number, small)"),
        ("my_nets:number", "must return a torch.nn.Module, got int"),
        ("no_such:thing", "cannot import 'no_such'"),
    ):
        assert words in sparseflow("prune", name, "-c", "magnitude", "-d", "0.1", code=2)


def made_by_hand(folder):
    from torch import nn

    return nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 4)).state_dict()


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_reports_of_one_file_and_of_two(sparseflow, tmp_path):
    for seed in (0, 1):
        out = tmp_path / f"{seed}.safetensors"
        words = ("prune", "mlp", *NET, "-c", "random", "-d", "0.2", *SHAPE, "--seed", seed, "-o", out)
        sparseflow(*words, *(("--report", tmp_path / "one") if seed == 0 else ()))
    page = (tmp_path / "one" / "masks.html").read_text()
    for word in ("Masks: 0.safetensors", "Density of every layer", "linears.0", "<svg", "Provenance", "criterion"):
        assert word in page
    assert {p.suffix for p in (tmp_path / "one" / "figures").iterdir()} == {".svg", ".pdf", ".csv"}
    densities = rows(tmp_path / "one" / "figures" / "density.csv")
    masks, _ = load(tmp_path / "0.safetensors")
    assert [int(row["active"]) for row in densities] == [int(mask.sum()) for mask in masks.values()]
    assert all(float(row["effective_density"]) <= float(row["density"]) for row in densities)
    two = (tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    printed = sparseflow("masks", *two, "--report", tmp_path / "two")
    assert "by chance" in printed
    page = (tmp_path / "two" / "masks.html").read_text()
    assert "Overlap of the two masks" in page
    other, _ = load(two[1])
    found = rows(tmp_path / "two" / "figures" / "overlap.csv")
    assert [int(row["both"]) for row in found] == [int((masks[n] & other[n]).sum()) for n in masks]


def test_many_layers_are_folded_and_numbered(sparseflow, tmp_path):
    words = ("prune", "mlp", "--set", "model.depth=40", "--set", "model.width=6", *SHAPE, "-o", tmp_path / "m")
    printed = sparseflow(*words, "-c", "magnitude", "-d", "0.1", "--budget", "uniform", "--report", tmp_path / "r")
    assert "... 19 more" in printed
    assert "linears.20 " not in printed
    assert "linears.20 " in sparseflow("masks", tmp_path / "m", "--all")
    assert "numbers of the table below" in (tmp_path / "r" / "masks.html").read_text()
    assert "collapsed: nothing passes" in printed
    assert "and 33 more" in printed


def test_masks_of_other_tools_are_shown(sparseflow, tmp_path):
    model = dense()
    with torch.no_grad():
        model.linears[0].weight[:, ::2] = 0
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")
    assert ["linears.0", "12x64", "768", "384", "0.5"] in [
        line.split() for line in sparseflow("masks", tmp_path / "w.pt").splitlines()
    ]
    printed = sparseflow("masks", tmp_path / "w.pt", "--model", "mlp", *NET, *SHAPE)
    assert "dense, no mask" in printed
    assert "the file does not say how its masks were made" in printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nope", "-c", "snip", "-d", "0.1"), "unknown model 'nope'"),
        (("mlp", "-c", "snap", "-d", "0.1"), "unknown criterion 'snap' (known:"),
        (("mlp", "-c", "magnitude", "-d", "0.1"), "mlp needs to know its inputs: give --data NAME, or --input-shape"),
        (("mlp", "-c", "snip", "-d", "0.1", *SHAPE), "weights are scored on examples; give --data NAME"),
        (("mlp", "-c", "magnitude", "-d", "1.5", *SHAPE), "density must be in (0, 1], got 1.5"),
        (("mlp", "-c", "magnitude", "-d", "a lot", *SHAPE), "--density takes numbers"),
        (("mlp", "-c", "magnitude", "-d", "", *SHAPE), "--density takes a number in (0, 1]"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--data", "digits", *SHAPE), "leave out --input-shape and --classes"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--examples", "5", *SHAPE), "criterion 'magnitude' looks at none"),
        (("mlp", "-c", "snip", "-d", "0.1", "--data", "digits", "--examples", "9999"), "must be in [1, 1,437]"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--set", "mask.density=1", *SHAPE), "this command makes the mask"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--set", "model.dept=1", *SHAPE), "model.dept: no such field"),
        (("a:b", "-c", "magnitude", "-d", "0.1", "--set", "model.depth=1"), "cannot import 'a'"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--option", "a", *SHAPE), "--option 'a': write it as name=value"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--option", "a=1", *SHAPE), "has no option 'a'"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--exclude", "fc*", *SHAPE), "exclude: 'fc*' matches no weight"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--budget", "erc", *SHAPE), "unknown budget 'erc'"),
        (("mlp", "-c", "magnitude", "-d", "0.1", "--weights", "none.pt", *SHAPE), "no file 'none.pt'"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(sparseflow, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    small = NET if words[0] == "mlp" else ()
    assert expected in sparseflow("prune", *words, *small, code=2)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_with_files(sparseflow, tmp_path):
    out = tmp_path / "m.safetensors"
    sparseflow("prune", "mlp", *NET, "-c", "random", "-d", "0.2", *SHAPE, "-o", out)
    other = ("--model", "mlp", "--set", "model.width=7", *SHAPE)
    assert "masks of another model (it was made for mlp)" in sparseflow("masks", out, *other, code=2)
    assert "no file" in sparseflow("masks", tmp_path / "none.safetensors", code=2)
    assert "give --model too" in sparseflow("masks", out, *SHAPE, code=2)
    torch.save(dense().state_dict(), tmp_path / "w.pt")
    assert "no weight has a zero" in sparseflow("masks", tmp_path / "w.pt", code=2)
    smaller = dense(model={"name": "mlp", "depth": 2, "width": 5})
    save(tmp_path / "s", {"linears.0.weight": smaller.linears[0].weight > 0})
    assert "has shape (12, 64) in the first mask and (5, 64)" in sparseflow("masks", out, tmp_path / "s", code=2)
    (tmp_path / "w.pt").unlink()
    torch.save(smaller.state_dict(), tmp_path / "w.pt")
    words = ("prune", "mlp", *NET, "-c", "random", "-d", "0.2", *SHAPE, "--weights", tmp_path / "w.pt")
    assert "not of this model: size mismatch for linears.0.weight" in sparseflow(*words, code=2)


def test_lists_and_help(sparseflow):
    assert "synflow" in sparseflow("list", "criteria")
    assert "erk" in sparseflow("list", "budgets")
    text = sparseflow("prune", "--help").replace("│", " ")
    for word in ("--criterion", "package.module:factory", "--exclude", "masks.safetensors", "10 for each"):
        assert word in " ".join(text.split())
    assert "mask file" in sparseflow("masks", "--help")
