"""A run that takes its masks from a file."""

from __future__ import annotations

import pytest
import torch

from sparseflow.core import SparseflowError, weight_shapes
from sparseflow.masks import random_masks, save
from sparseflow.models import sketch
from sparseflow.study import Surroundings, execute, masks_digest
from sparseflow.train import checkpoint


@pytest.fixture
def mask_file(tmp_path):
    def make(seed=0, width=24, density=0.3):
        shapes = weight_shapes(sketch("mlp", (3, 6, 6), 4, depth=3, width=width))
        masks = random_masks(shapes, {n: int(density * s.numel()) for n, s in shapes.items()}, seed)
        path = tmp_path / f"{seed}-{width}.safetensors"
        save(path, masks)
        return path, masks

    return make


@pytest.mark.parametrize("execution", ["masked", "compact"])
def test_the_run_trains_the_masks_of_the_file(execution, mask_file, small, cache, tmp_path):
    path, masks = mask_file()
    spec = small(mask={"twin_width": None, "file": str(path), "execution": execution})
    where = Surroundings(checkpoints=tmp_path, keep=True)
    result = execute(spec, where, cache)
    kept = checkpoint.load(where.final_path(spec.name))
    assert set(result.execution.values()) == {execution}
    for name, mask in masks.items():
        assert torch.equal(kept["masks"][name], mask)
        assert not kept["state_dict"][name][~mask].any()
        assert result.active[name] == int(mask.sum())


def test_other_masks_are_another_run(mask_file, small, cache):
    path, masks = mask_file()
    other, other_masks = mask_file(seed=1)
    assert masks_digest(masks) != masks_digest(other_masks)
    spec = small(mask={"twin_width": None, "file": str(path), "digest": masks_digest(masks)})
    assert execute(spec, Surroundings(), cache).status == "finished"
    other.replace(path)
    with pytest.raises(SparseflowError, match=r"has other masks .* than the run was named for"):
        execute(spec, Surroundings(), cache)
    another = small(mask={"twin_width": None, "file": str(path), "digest": masks_digest(other_masks)})
    assert another.name != spec.name
    first = execute(another, Surroundings(), cache).digest
    shuffled = small(mask={"twin_width": None, "file": str(path), "shuffle": True})
    assert execute(shuffled, Surroundings(), cache).digest != first


def test_bad_mask_files_are_one_clear_error(mask_file, small, cache, tmp_path):
    with pytest.raises(SparseflowError, match="no file"):
        execute(small(mask={"twin_width": None, "file": str(tmp_path / "none")}), Surroundings(), cache)
    path, _ = mask_file(width=20)
    with pytest.raises(SparseflowError, match="linears"):
        execute(small(mask={"twin_width": None, "file": str(path)}), Surroundings(), cache)
    with pytest.raises(SparseflowError, match=r"digest .* needs file"):
        small(mask={"digest": "abc"})
