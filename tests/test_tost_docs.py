"""The code of docs/tost.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.nn import functional as F

from sparseflow.core import stream, weight_shapes
from sparseflow.masks import random_masks, uniform
from sparseflow.models import models
from sparseflow.tost import fades

PAGE = (Path(__file__).parent.parent / "docs" / "tost.md").read_text(encoding="utf-8")


def test_the_loop():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models["resnet"]((3, 8, 8), 5, depth=8, width=4)
    draw = stream(0, "batches")
    loader = [(torch.randn(8, 3, 8, 8, generator=draw), torch.randint(5, (8,), generator=draw)) for _ in range(3)]
    shapes = weight_shapes(model)
    chosen = random_masks(shapes, uniform(shapes, 0.4), seed=0)
    kinds = [type(m) for m in model.modules()]
    names = {"torch": torch, "model": model, "chosen": chosen, "loader": loader, "loss_fn": F.cross_entropy}
    short = (
        code.replace("until(90,", "until(2,")
        .replace("epochs=180", "epochs=3")
        .replace("lr=0.1)\n", "lr=0.1, iterations=2)\n")
    )
    names |= {"example": loader[0][0], "epochs": 3}
    exec(short, names)
    assert all(one.finished and one.steps == 9 for one in names["ghosts"])
    assert [type(m) for m in model.modules()] == kinds
    assert not any(model.get_parameter(name)[~mask].any() for name, mask in chosen.items())


def test_every_shape_is_on_the_page():
    assert set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)) >= set(fades.names)
