"""The table of docs/models.md says what the catalog says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sparseflow.core import weight_shapes
from sparseflow.models import models, sketch

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].strip("`") in models.names
}
DATA: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "MNIST": ((1, 28, 28), 10, {}),
    "CIFAR-10": ((3, 32, 32), 10, {}),
    "CIFAR-100": ((3, 32, 32), 100, {}),
    "ImageNet": ((3, 224, 224), 1000, {"stem": "imagenet"}),
}


def written(option: str, value: Any) -> str:
    if value is None:
        return "width (input size + 4)" if option == "width" else f"{option} none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{option} {text.lower()}"


@pytest.mark.parametrize("name", models.names)
def test_the_page_has_the_model_with_its_options_and_its_size(name):
    options, _, weights, *_ = ROWS[name]
    assert options == ", ".join(written(*item) for item in models.entry(name).facts["options"].items())
    claims = re.findall(r"(?:(width|padding) (\d+): )?([\d,]+) \((.*?)\)", weights)
    assert claims
    for option, value, count, data in claims:
        shape, classes, how = DATA[data]
        how = how | ({option: int(value)} if option else {})
        sizes = weight_shapes(sketch(name, shape, classes, **how)).values()
        assert f"{sum(size.numel() for size in sizes):,}" == count
