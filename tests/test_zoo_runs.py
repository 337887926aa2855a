"""Every model can be named in a run and is trained from its specification to its result."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparseflow.core import BadValue
from sparseflow.models import models
from sparseflow.study import CompareSpec, RunSpec, Surroundings, active_per_layer, build, cells, execute, validate

SHALLOW = {"mlp": 2, "resnet": 8, "wide-resnet": 10}


@pytest.fixture(scope="module")
def images_npz(tmp_path_factory) -> Path:
    """Three classes of noisy 16 x 16 grey images: 36 to train on, 12 to test on."""
    draw = np.random.default_rng(0)

    def split(n: int):
        y = np.arange(n) % 3
        return np.clip(80 * y[:, None, None, None] + draw.normal(40, 20, (n, 1, 16, 16)), 0, 255).astype(np.uint8), y

    (x, y), (x_test, y_test) = split(36), split(12)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x, y=y, x_test=x_test, y_test=y_test)
    return path


def narrow(name: str, width: int = 4) -> dict[str, Any]:
    return {"name": name, "width": width, **({"depth": SHALLOW[name]} if name in SHALLOW else {})}


@pytest.mark.parametrize("mask", [{"density": 0.5}, {"twin_width": 2}], ids=["density", "twin"])
@pytest.mark.parametrize("name", models.names)
def test_a_sparse_run_of_every_model(name, mask, images_npz, cache):
    content = {
        "data": {"name": str(images_npz)},
        "model": narrow(name),
        "train": {"epochs": 1, "batch_size": 12},
        "measure": {"points": 2, "probe_size": 12},
    }
    rows: list = []
    result = execute(validate(RunSpec, {**content, "mask": mask}), Surroundings(), cache, rows.extend)
    assert result.status == "finished"
    assert np.isfinite([value for *_, value in rows]).all()
    assert result.stacked == (name == "mlp")
    shape, classes = (1, 16, 16), 3
    whole = active_per_layer(validate(RunSpec, content), shape, classes)
    if "density" in mask:
        assert result.active == {layer: max(1, round(count / 2)) for layer, count in whole.items()}
    else:
        twin = validate(RunSpec, {**content, "model": narrow(name, width=2)})
        assert result.active == active_per_layer(twin, shape, classes)


@pytest.mark.parametrize("name", models.names)
def test_every_model_can_be_compared_at_equal_capacity(name):
    """The sparse member is the model as it is, the dense one narrower, layer by layer of equal size."""
    model = {"name": name, "norm_affine": False}
    spec = validate(CompareSpec, {"model": model, "compare": {"dense_widths": [0.5], "variants": ["BN"]}})
    if models.entry(name).facts["options"]["norm"] == "batch":  # a variant that changes nothing may not be named
        spec = validate(CompareSpec, {"model": model, "compare": {"dense_widths": [0.5]}})
    shape = models.entry(name).facts["example"]

    class Data:
        input_size = prod(shape)

    (cell,) = cells(spec, Data())
    for pair in cell.pairs:
        sparse, dense = (active_per_layer(run, shape, 10) for run in (pair.sparse, pair.dense))
        assert sparse == dense
        assert pair.sparse.model.norm == pair.dense.model.norm == "batch"
        assert pair.sparse.model.norm_affine is pair.dense.model.norm_affine is False


def test_an_image_too_small_for_the_network_is_refused():
    with pytest.raises(BadValue, match="vgg16 needs images of at least 16 x 16 pixels, got 8 x 8"):
        build(validate(RunSpec, {"model": {"name": "vgg16"}}), (1, 8, 8), 10)
