"""The examples of the page on analyses run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from sparseflow.core import weight_shapes
from sparseflow.masks import count, random_masks

PAGE = Path(__file__).parent.parent / "docs" / "analyses.md"


def test_the_page_runs():
    draw = torch.Generator().manual_seed(0)
    nets = [nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
    shapes = weight_shapes(nets[0])
    masks = random_masks(shapes, count("uniform", shapes, 0.4), seed=0)
    for net in nets:
        for p in net.parameters():
            nn.init.normal_(p, generator=draw)
        for name, mask in masks.items():
            net.get_parameter(name).data.mul_(mask)
    batches = [(torch.randn(16, 12, generator=draw), torch.arange(16) % 3) for _ in range(2)]
    images, labels = batches[0]
    names = {
        "model": nets[0],
        "nets": nets,
        "pruned": nets[2],
        "states": [net.state_dict() for net in nets],
        "masks": masks,
        "batches": batches,
        "test_batches": batches,
        "images": images,
        "labels": labels,
        "targets": torch.cat([y for _, y in batches]),
        "distances": [-1.0, 0.0, 1.0],
        "xs": [0.0, 1.0],
        "ys": [0.0],
    }
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    assert names["hessian"].size == sum(int(mask.sum()) for mask in masks.values())
    assert names["places"].shape == (3, 2)
    assert names["line"].losses[1] == names["plane"].losses[0][0]
    assert names["row"].reference_disagreement.n == 3
