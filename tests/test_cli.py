"""The commands end to end, at the smallest scale."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys

import pytest
import torch

from arms_results import read_tables
from data_files import write_image
from sparseflow.cli import main
from sparseflow.data import load
from sparseflow.models import MLP
from sparseflow.study import Store

TINY = ["--seeds", "1", "--set", "train.epochs=2", "--set", "compare.dense_widths=[0.5, 20]", "--jobs", "2"]


def table(path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def sparseflow(monkeypatch, capsys):
    def call(*words) -> str:
        monkeypatch.setattr(sys, "argv", ["sparseflow", *map(str, words)])
        with contextlib.suppress(
            SystemExit
        ):  # typer ends --version and --help so; errors print nothing to standard output
            main()
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(("said", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_a_command_has_one_thread_unless_told_otherwise(said, threads):
    code = """if True:
        import sys
        from sparseflow.cli import main
        sys.argv = ["sparseflow", "--version"]
        try:
            main()
        except SystemExit:
            import torch
            print(torch.get_num_threads())
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | said
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert printed.stdout.splitlines()[-1] == threads


def test_compare_writes_everything_and_repeats_nothing(sparseflow, tmp_path):
    out = tmp_path / "out"
    words = ["compare", "digits", *TINY, "--set", "compare.variants=[NR, DA_L2_BN]", "--out", out]
    printed = sparseflow(*words)
    assert f"report: {out / 'report.html'}" in printed
    assert "16 runs, 16 of them executed now" in printed
    page = (out / "report.html").read_text()
    for expected in ("Does sparse beat dense?", "DA_L2_BN", "Hodges-Lehmann", "Kendall", "Every run", "<svg", "digest"):
        assert expected in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    figures = {p.name for p in (out / "figures").iterdir()}
    for name in ("accuracy-vs-width", "egf2-vs-width", "gf1-vs-width", "differences"):
        assert {f"{name}.svg", f"{name}.pdf", f"{name}.csv"} <= figures
    rows = table(out / "runs.csv")
    assert len(rows) == 16
    assert all(row["status"] == "finished" and row["weights_digest"] for row in rows)
    by_pair: dict = {}
    for row in rows:
        by_pair.setdefault((row["optimizer"], row["variant"], row["dense_width"]), set()).add(row["active_weights"])
    assert all(len(counts) == 1 for counts in by_pair.values())
    cells = table(out / "pvalues.csv")
    assert {(c["optimizer"], c["variant"]) for c in cells} == {
        (o, v) for o in ("Mom (0.9)", "Adam") for v in ("NR", "DA_L2_BN")
    }
    assert all(c["smallest_p"] == "0.25" for c in cells)
    assert len(table(out / "kendall.csv")) == 2 * 5 * 2 * 2
    before = {name: (out / name).read_text() for name in ("runs.csv", "pvalues.csv", "kendall.csv")}
    assert "16 runs, 0 of them executed now" in sparseflow(*words)
    assert sparseflow("report", out).startswith("report: ")
    assert {name: (out / name).read_text() for name in before} == before


def test_dry_run_says_what_and_how_long(sparseflow, tmp_path):
    printed = sparseflow("compare", "digits", *TINY, "--out", tmp_path / "o", "--dry-run")
    assert "1,280 + 400 + 400 + 400 + 200" in printed
    assert "8 cells x 2 pairs: 32 runs; estimated" in printed
    assert not (tmp_path / "o").exists()


@pytest.mark.slow  # half a minute: several whole commands
def test_compare_arms_chooses_reports_and_repeats_nothing(sparseflow, tmp_path):
    out = tmp_path / "out"
    words = ["compare", "arms-digits", "--seeds", "2", "--set", "base.train.epochs=2", "--set", "grid_seeds=1"]
    words += ["--set", "arms.adam.grid.optimizer.lr=[1e-6, 0.003]", "--jobs", "1", "--out", out]
    lines = sparseflow(*words).splitlines()
    assert lines[0].endswith(", digits: 4 arms x 2 seeds, 2 runs to choose by: 10 runs, 1 worker")
    # On a slow machine lines of progress stand between.
    assert lines[-2:] == [f"report: {out / 'report.html'}", "10 runs, 10 of them executed now"]
    page = (out / "report.html").read_text()
    for expected in ("random 0.05", "lr 0.003", "Tests", "The choice of adam", "With 2 seeds no p below 0.5", "<svg"):
        assert expected in page
    figures = {p.name for p in (out / "figures").iterdir()}
    assert figures == {
        f"{name}.{kind}"
        for name in ("accuracies", "curves", "density-accuracy", "density-flow", "gradient-flow")
        for kind in ("svg", "pdf", "csv")
    }
    before = read_tables(out)
    assert [row["arm"] for row in before["arms"]] == ["dense", "random 0.2", "random 0.05", "adam"]
    assert [row["chosen"] for row in before["choices"]] == ["False", "True"]
    assert "10 runs, 0 of them executed now" in sparseflow(*words)
    assert sparseflow("report", out).startswith("report: ")
    assert read_tables(out) == before


def test_dry_run_of_arms_counts_the_choice_in(sparseflow, tmp_path):
    words = ("--set", "base.train.epochs=2", "--out", tmp_path / "o", "--dry-run")
    printed = sparseflow("compare", "arms-digits", *words)
    assert "adam              3           9,656" in printed
    assert "4 arms x 3 seeds, 9 runs to choose by: 21 runs; estimated" in printed
    assert not (tmp_path / "o").exists()


def test_train_keeps_a_network_that_plain_torch_loads(sparseflow, tmp_path):
    out = tmp_path / "o"
    words = ("--set", "train.epochs=2", "--set", "mask.density=0.25", "--set", "mask.execution=compact")
    printed = sparseflow("train", "digits", *words, "--out", out)
    assert "finished: test accuracy" in printed
    (path,) = (out / "checkpoints").glob("*.final.pt")
    kept = torch.load(path, weights_only=True)
    model = MLP((1, 8, 8), 10, depth=4, width=68)
    model.load_state_dict(kept["state_dict"])
    for name, mask in kept["masks"].items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any()
        assert int(mask.sum()) == round(0.25 * mask.numel())
    assert "Training curves" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    "what", ["datasets", "models", "optimizers", "schedules", "activations", "variants", "presets"]
)
def test_list(sparseflow, what):
    rows = json.loads(sparseflow("list", what, "--json"))
    assert rows
    assert all(row["name"] and row["what"] for row in rows)
    assert rows[0]["name"] in sparseflow("list", what)


def test_version(sparseflow):
    assert sparseflow("--version").strip()


@pytest.mark.slow
def test_a_folder_of_images_is_trained_on_by_its_path(sparseflow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSEFLOW_CACHE", raising=False)
    for k in range(40):
        write_image(tmp_path / "photos" / "ab"[k % 2] / f"{k}.jpg", k, (10 + k % 3, 9))
    words = ["train", "./photos", "--set", "data.image_size=8", "--set", "train.epochs=1", "--set", "model.width=8"]
    words += ["--set", "data.augment=true", "--set", "data.crop=resized", "--set", "measure.points=0"]
    printed = sparseflow(*words)
    assert "decoding 40 images of photos into" in printed
    assert "finished: test accuracy" in printed
    assert ".sparseflow" in printed
    store = Store(tmp_path / "runs" / "train-photos")
    (result,) = store.results().values()
    store.close()
    assert result["data_digest"] == load("./photos", image_size=8).digest
