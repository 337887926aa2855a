"""`sparseflow analyse signal`, end to end."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from sparseflow.cli import main
from sparseflow.init import Scheme
from sparseflow.measure import Propagation, signal_propagation
from sparseflow.report.blocks import Text
from sparseflow.study import RunSpec, build, validate

NET = ("mlp", "--set", "model.depth=2", "--set", "model.width=12", "--input-shape", "1,4,4", "--classes", "3")
SMALL = ("--probes", "8", "--draws", "3", "-d", "0.5,0.2")


@pytest.fixture
def sparseflow(monkeypatch, capsys):
    def call(*words, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["sparseflow", "analyse", "signal", *map(str, words)])
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
        said = capsys.readouterr()
        assert ended == code, said
        return said.err if code == 2 else said.out

    return call


@pytest.fixture
def no_figure(monkeypatch):
    """Drawing takes longer than all else here; the first test looks at the figure."""
    monkeypatch.setattr("sparseflow.report.signal.signal_figure", lambda points, folder: Text("a figure"))


def rows(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_what_the_library_measures(sparseflow, tmp_path):
    out = tmp_path / "o"
    words = (*NET, *SMALL, "--seed", "2", "--budget", "erk", "--dense", "output*", "--set", "init.scheme=glorot")
    printed = sparseflow(*words, "--out", out)
    spec = validate(RunSpec, {"model": {"name": "mlp", "depth": 2, "width": 12}, "init": {"scheme": "glorot"}})
    model = build(spec, (1, 4, 4), 3).model
    wanted = signal_propagation(
        model, (1, 4, 4), [0.5, 0.2], draws=3, probes=8, seed=2, budget="erk", dense="output*",
        scheme=Scheme("glorot"),
    )  # fmt: skip
    found = rows(out / "signal.csv")
    assert [(r["initialisation"], float(r["density"]), float(r["rms"]), float(r["dead"])) for r in found] == [
        (p.initialisation, p.density, p.rms, p.dead) for p in wanted
    ]
    assert [float(r["relative"]) for r in found] == [p.rms / wanted[0].rms for p in wanted]
    assert [float(r["low"]) for r in found] == [p.quantile(0.1) for p in wanted]
    assert rows(out / "figures" / "signal.csv") == found
    assert {p.name for p in (out / "figures").iterdir()} == {"signal.svg", "signal.pdf", "signal.csv"}
    assert len(rows(out / "draws.csv")) == 3 * (1 + 2 * 3)
    assert f"report: {out / 'report.html'}" in printed
    deviation = f"{wanted[0].rms:.3g} ± {wanted[0].error:.1g}"
    assert printed.splitlines()[1].split()[:5] == ["dense", "1", *deviation.split()]
    page = (out / "report.html").read_text()
    for word in ("Signal propagation: mlp", "<svg", "least fan-in", "Provenance", "budget: erk", "made_with"):
        assert word in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


def test_what_was_cut_goes_on_and_nothing_is_drawn_twice(sparseflow, no_figure, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    sparseflow(*NET, *SMALL, "-o", whole)
    drawn = []
    original = Propagation.draw

    def few(self, key):
        if len(drawn) == 7:
            raise KeyboardInterrupt
        drawn.append(key)
        return original(self, key)

    monkeypatch.setattr(Propagation, "draw", few)
    printed = sparseflow(*NET, *SMALL, "-o", cut, code=130)
    assert "interrupted after 7 of 21 networks; the same command goes on" in printed
    assert [r["draws"] for r in rows(cut / "signal.csv")] == ["3", "2"]
    assert "a figure" in (cut / "report.html").read_text()
    with (cut / "draws.csv").open("a") as file:
        file.write("liu,0.5,1,0.123")  # killed while it wrote
    drawn.clear()
    monkeypatch.setattr(Propagation, "draw", lambda self, key: (drawn.append(key), original(self, key))[1])
    assert "7 of 21 networks are there already" in sparseflow(*NET, *SMALL, "-o", cut)
    assert len(drawn) == 14
    for name in ("signal.csv", "draws.csv", "settings.json"):
        assert (cut / name).read_text() == (whole / name).read_text()
    drawn.clear()
    sparseflow(*NET, "--probes", "8", "--draws", "4", "-d", "0.5", "-i", "fans", "-o", cut)
    assert [(key.initialisation, key.density, key.number) for key in drawn] == [("dense", 1.0, 3), ("fans", 0.5, 3)]
    assert [r["draws"] for r in rows(cut / "signal.csv")] == ["4", "4"]


def test_a_folder_of_other_settings_or_damaged_is_refused(sparseflow, no_figure, tmp_path):
    out = tmp_path / "o"
    words = (*NET, "--draws", "2", "-d", "0.5", "-i", "liu", "-o", out)
    sparseflow(*words, "--probes", "8")
    before = (out / "draws.csv").read_text()
    assert "draws of other settings (probes 8, now 9)" in sparseflow(*words, "--probes", "9", code=2)
    assert "draws of other settings (seed 0, now 1" in sparseflow(*words, "--probes", "8", "--seed", "1", code=2)
    assert (out / "draws.csv").read_text() == before
    (out / "draws.csv").write_text(before.replace("liu,0.5,1,", "liu,0.5,one,"))
    assert "is damaged" in sparseflow(*words, "--probes", "8", code=2)
    (out / "draws.csv").write_text(before)
    (out / "settings.json").write_text("{")
    assert "without readable settings" in sparseflow(*words, "--probes", "8", code=2)


def test_a_model_of_ones_own(sparseflow, no_figure, tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Own(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(6, 9), nn.Linear(9, 4)\n"
        "    def forward(self, x):\n        return self.b(torch.relu(self.a(x)))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "give --input-shape" in sparseflow("own_nets:Own", *SMALL, code=2)
    sparseflow("own_nets:Own", *SMALL, "--input-shape", "6")
    out = tmp_path / "runs" / "signal-own_nets.Own"
    settings = json.loads((out / "settings.json").read_text())
    assert settings["recipe"] == {"import": "own_nets:Own", "input_shape": [6]}
    text = (tmp_path / "own_nets.py").read_text()
    (tmp_path / "own_nets.py").write_text(text.replace("nn.Linear(6, 9)", "nn.Linear(6, 9, bias=False)"))
    sys.modules.pop("own_nets")
    assert "other settings" in sparseflow("own_nets:Own", *SMALL, "--input-shape", "6", code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*NET, "-d", "1.5"), "density must be in (0, 1], got 1.5"),
        ((*NET, "-d", "much"), "--densities takes numbers"),
        ((*NET, "-i", "lui"), "did you mean 'liu'"),
        ((*NET, "--draws", "1"), "draws must be at least 2"),
        ((*NET, "--probes", "1"), "probes must be at least 2"),
        ((*NET, "--budget", "erkk"), "did you mean 'erk'"),
        ((*NET, "--set", "train.epochs=3"), "--set train...: has no effect here"),
        ((*NET, "--set", "init.method=fans"), "--set init.method...: has no effect here"),
        ((*NET, "--device", "cuda:x"), "device must be cpu, cuda or cuda:N"),
        (("mpl", "--input-shape", "4", "--classes", "2"), "did you mean 'mlp'"),
        (("mlp",), "needs to know its inputs"),
    ],
    ids=str,
)
def test_mistakes_are_one_message(sparseflow, tmp_path, words, said):
    assert said in sparseflow(*words, "--out", tmp_path / "o", code=2)
    assert not (tmp_path / "o").exists()
