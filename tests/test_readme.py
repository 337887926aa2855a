"""The README's library example runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

README = Path(__file__).parent.parent / "README.md"


def test_the_library_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    names = {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "loader": [(torch.randn(16, 20, generator=draw), torch.randint(3, (16,), generator=draw)) for _ in range(4)],
        "loss_fn": nn.CrossEntropyLoss(),
    }
    exec(code, names)
    assert names["sparse"].steps == 4
    assert not model[0].weight[~names["m"]["0.weight"]].any()
    assert names["flow"].egf_2 > 0


def test_its_command_without_data_runs(tmp_path, analyse):
    (words,) = re.findall(r"sparseflow analyse (signal [^#]*)#", README.read_text(encoding="utf-8"))
    analyse(*words.split(), "--draws", "2", "-d", "0.5", "-i", "fans", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_compact_as_the_readme_says():
    from sparseflow import compact, core, masks

    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    shapes = core.weight_shapes(model)
    model, done, left = compact(model, masks.random_masks(shapes, masks.uniform(shapes, 0.05), seed=0))
    assert done == ("0.weight", "2.weight")
    assert left == {}


def test_the_masks_page_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (README.parent / "docs" / "masks.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    batches = [(torch.randn(16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)]
    names = {"model": model, "batches": batches, "loss_fn": nn.CrossEntropyLoss()}
    exec(code, names)
    assert names["provenance"].criterion == "snip"
    assert sum(int(mask.sum()) for mask in names["m"].values()) == 46
