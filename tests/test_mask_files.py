"""Mask files: what is written is read, and what is wrong is said."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sparseflow.core import BadData, BadValue, weight_shapes
from sparseflow.masks import Provenance, load, random_masks, save, uniform
from sparseflow.models import MLP


@pytest.fixture
def model():
    return MLP((6,), 3, depth=2, width=5)


@pytest.fixture
def masks(model):
    shapes = weight_shapes(model)
    found = random_masks(shapes, uniform(shapes, 0.4), seed=3)
    return {name: found[name] for name in ("output.weight", "linears.0.weight")}  # neither all nor sorted


@pytest.fixture
def path(tmp_path, model, masks):
    place = tmp_path / "m.safetensors"
    save(place, masks, Provenance.of(model, name="a net", criterion="random", density=0.4))
    return place


def test_masks_and_provenance_come_back(tmp_path, model, masks):
    place = tmp_path / "new" / "m.safetensors"
    made = Provenance.of(
        model,
        criterion="snip",
        budget="vector",
        density=[0.5, 0.25],
        rounds=3,
        seed=7,
        options={"temperature": 200.0},
        data="digits",
        data_digest="abc",
        recipe={"classes": 3},
    )
    save(place, masks, made)
    found, provenance = load(place, model)
    assert list(found) == list(masks)
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
    assert provenance == made
    assert provenance.model == "sparseflow.models.mlp.MLP"
    assert provenance.weights == weight_shapes(model)
    assert "torch" in provenance.made_with
    assert provenance.date.endswith("+00:00")
    assert len(provenance.weights_digest) == 16


def test_other_readers_open_the_file(path, masks):
    plain = load_file(path)
    assert plain.keys() == masks.keys()
    assert all(plain[name].dtype is torch.bool for name in plain)


def test_equal_masks_are_equal_files(tmp_path, model, masks):
    provenance = Provenance.of(model)
    for name in ("a", "b"):
        save(tmp_path / name, masks, provenance)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_views_and_shared_masks_are_written_as_they_are(tmp_path):
    wide = torch.eye(6, dtype=torch.bool)
    masks = {"a": wide[:, ::2], "b": wide.t()[:, ::2], "c": wide[:, ::2]}
    save(tmp_path / "m", masks)
    found, provenance = load(tmp_path / "m")
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
    assert provenance == Provenance()


def test_the_digest_names_the_weights_in_order():
    def digest(*layers):
        return Provenance.of(nn.Sequential(*layers)).weights_digest

    assert digest(nn.Linear(2, 3), nn.Linear(3, 4)) == digest(nn.Linear(2, 3, bias=False), nn.Linear(3, 4))
    assert len({digest(nn.Linear(2, 3)), digest(nn.Linear(3, 2)), digest(nn.ReLU(), nn.Linear(2, 3))}) == 3


def test_masks_of_plain_bool_files_are_checked_against_the_model(tmp_path, model, masks):
    save_file({name: mask.clone() for name, mask in masks.items()}, tmp_path / "plain.safetensors")
    assert load(tmp_path / "plain.safetensors", model)[0].keys() == masks.keys()
    save_file({"fc.weight": torch.ones(2, 2, dtype=torch.bool)}, tmp_path / "other.safetensors")
    with pytest.raises(BadData, match=r"masks of another model: fc.weight 2x2 is not in the model$"):
        load(tmp_path / "other.safetensors", model)


def test_another_model_is_one_error_with_the_first_differences(path):
    with pytest.raises(BadData) as caught:
        load(path, MLP((6,), 3, depth=4, width=7))
    message = str(caught.value)
    assert "\n" not in message
    assert "masks of another model (it was made for a net)" in message
    assert "linears.0.weight is 5x6 in the file and 7x6 in the model" in message
    assert "; and 2 more" in message
    with pytest.raises(BadData, match=r"linears.2.weight 5x5 is not in the file$"):
        load(path, MLP((6,), 3, depth=3, width=5))
    with pytest.raises(BadData, match=r"linears.1.weight 5x5 is not in the model$"):
        load(path, MLP((6,), 3, depth=1, width=5))


def spoiled(path, how):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    if how == "flipped":  # a mask's byte
        raw = raw[:-1] + bytes([1 - raw[-1]])
    elif how == "cut":
        raw = raw[:-4]
    elif how == "head":
        raw = raw[: size // 2]
    elif how == "empty":
        raw = b""
    elif how == "text":
        raw = b"weights: none\n" * 40
    else:
        header = json.loads(raw[8 : 8 + size])
        text = header["__metadata__"]["sparseflow.masks"]
        header["__metadata__"]["sparseflow.masks"] = how(text)
        new = json.dumps(header).encode()
        raw = struct.pack("<Q", len(new)) + new + raw[8 + size :]
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("flipped", "the masks are not those that were written"),
        ("cut", "not a safetensors file, or damaged"),
        ("head", "not a safetensors file, or damaged"),
        ("empty", "not a safetensors file, or damaged"),
        ("text", "not a safetensors file, or damaged"),
        (lambda text: text[:-9], "its metadata is damaged"),
        (lambda text: "[]", "its metadata is damaged"),
        (lambda text: text.replace('\\"format\\": 1', '\\"format\\": 9'), "has format 9, this version reads 1"),
        (lambda text: text.replace("a net", "a net\\"), "damaged"),
        (lambda text: text.replace("[5, 6]", "[5, 7]"), "its provenance is damaged"),
        (lambda text: text.replace('\\"rounds\\"', '\\"turns\\"'), "its provenance is damaged"),
    ],
)
def test_damage_is_said(path, how, words):
    spoiled(path, how)
    with pytest.raises(BadData) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_no_mask_file(tmp_path, model):
    with pytest.raises(BadData, match=r"no file '.*none'"):
        load(tmp_path / "none")
    with pytest.raises(BadData, match="no file"):
        load(tmp_path)
    save_file({"a": torch.ones(2, 2)}, tmp_path / "float")
    with pytest.raises(BadData, match=r"'a' is torch.float32, not bool: this is no mask file"):
        load(tmp_path / "float")
    save_file({}, tmp_path / "nothing")
    with pytest.raises(BadData, match="holds no masks"):
        load(tmp_path / "nothing")
    torch.save(model.state_dict(), tmp_path / "pickle")
    with pytest.raises(BadData, match="not a safetensors file"):
        load(tmp_path / "pickle")


def test_what_cannot_be_saved(tmp_path, model, masks):
    with pytest.raises(BadValue, match="no masks to save"):
        save(tmp_path / "m", {})
    with pytest.raises(BadValue, match=r"mask 'a' must be a bool tensor, got torch.float32"):
        save(tmp_path / "m", {"a": torch.ones(2)})
    bad = {"output.weight": torch.ones(3, 4, dtype=torch.bool)}
    with pytest.raises(BadValue, match=r"not of a net: output.weight is 3x4 in the file and 3x5"):
        save(tmp_path / "m", bad, Provenance.of(model, name="a net"))
    with pytest.raises(BadValue, match="cannot be written as JSON"):
        save(tmp_path / "m", masks, Provenance.of(model, options={"f": print}))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadValue, match="cannot write"):
        save(tmp_path / "file" / "m", masks)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_while_writing_leaves_the_old_file(path, masks, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BadValue, match=r"cannot write .*: No space left on device"):
        save(path, masks)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
