"""Folders of images: every layout, what is passed over, how pictures come out, and what is said of bad folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_files import write_image, write_tree
from sparseflow.core import BadData, BadValue
from sparseflow.data import StreamedSplit, load
from sparseflow.data.decode import Damaged, Frame, decode
from sparseflow.data.folder import list_images
from sparseflow.data.image_cache import room_for

COUNTS = {"bee": 7, "ant": 5, "cat": 9}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with train/ and val/, images of one size."""
    write_tree(tmp_path / "photos" / "train", COUNTS)
    write_tree(tmp_path / "photos" / "val", {"ant": 2, "bee": 1, "cat": 3})
    return tmp_path / "photos"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).transpose(2, 0, 1)


def test_images_of_one_size_are_taken_as_they_are_with_labels_by_sorted_class(photos: Path) -> None:
    data = load(str(photos))
    assert (data.name, data.classes, data.class_names, data.notes) == ("photos", 3, ("ant", "bee", "cat"), ())
    assert (data.train.y.bincount().tolist(), data.test.y.bincount().tolist()) == ([5, 7, 9], [2, 1, 3])
    assert data.input_shape == (3, 10, 12)
    assert data.train.margin == 0
    assert not data.flip_ok
    files = [photos / found.path for found in list_images(photos).train.found]
    assert [file.parent.name for file in files] == ["ant"] * 5 + ["bee"] * 7 + ["cat"] * 9
    for file, x in zip(files, data.train.x, strict=True):
        np.testing.assert_array_equal(x.numpy(), pixels(file))


def test_test_images_may_be_called_test_but_val_comes_first(photos: Path) -> None:
    write_tree(photos / "test" / "images", {"unlabelled": 4})
    assert len(load(str(photos)).test) == 6
    for file in sorted((photos / "val").rglob("*.png")):
        file.unlink()
    for folder in sorted((photos / "val").iterdir()):
        folder.rmdir()
    (photos / "val").rmdir()
    with pytest.raises(BadData, match="test has no folder that is named as a class of train/"):
        load(str(photos))
    write_tree(photos / "test", {"ant": 1, "bee": 1, "cat": 1})
    (photos / "test" / "images" / "unlabelled").rename(photos / "elsewhere")
    assert len(load(str(photos)).test) == 3


@pytest.mark.parametrize("below", ["", "train"])
def test_without_test_images_the_fixed_split_is_made(tmp_path: Path, below: str) -> None:
    write_tree(tmp_path / "plain" / below, {"a": 10, "b": 20})
    data = load(str(tmp_path / "plain"))
    assert (data.train.y.bincount().tolist(), data.test.y.bincount().tolist()) == ([8, 16], [2, 4])
    missing = "val/ or test/" if below else "train/"
    assert data.notes == (f"no {missing} in plain: a fixed stratified 80/20 split",)
    again = load(str(tmp_path / "plain"))
    assert torch.equal(again.test.x, data.test.x)
    rows = {x.numpy().tobytes() for split in (data.train, data.test) for x in split.x}
    assert len(rows) == 30


def tiny_imagenet(root: Path, classes: int = 3) -> Path:
    """As its archive unpacks: images/ in each class, boxes, an unlabelled test/, one val/images with annotations."""
    folder = root / "tiny-imagenet-200"
    ids = [f"n0{7 - k}" for k in range(classes)]
    for k, name in enumerate(ids):
        for i in range(4):
            write_image(folder / "train" / name / "images" / f"{name}_{i}.JPEG", 10 * k + i, (64, 64))
        (folder / "train" / name / f"{name}_boxes.txt").write_text("n_0.JPEG\t0\t0\t62\t62\n")
    for i in range(6):
        write_image(folder / "val" / "images" / f"val_{i}.JPEG", 100 + i, (64, 64), "L" if i == 2 else "RGB")
    rows = [f"val_{i}.JPEG\t{ids[i % classes]}\t0\t0\t62\t62" for i in range(6)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    write_image(folder / "test" / "images" / "test_0.JPEG", 1, (64, 64))
    (folder / "wnids.txt").write_text("\n".join(ids))
    (folder / "words.txt").write_text("n05\tcrane, a bird\nn06\tking penguin\nn99\tentity\n")
    return folder


@pytest.mark.parametrize("place", ["below", "itself"])
def test_tiny_imagenet_as_unpacked(tmp_path: Path, place: str) -> None:
    folder = tiny_imagenet(tmp_path)
    data = load("tiny-imagenet", tmp_path if place == "below" else folder)
    assert (data.name, data.classes, data.input_shape, data.flip_ok) == ("tiny-imagenet", 3, (3, 64, 64), True)
    assert data.class_names == ("crane", "king penguin", "n07")
    assert data.notes == ("12 of 100,000 training images", "6 of 10,000 test images")
    # val_i is of the i-th identifier as listed (n07, n06, n05, ...); labels go by sorted identifier.
    assert data.test.y.tolist() == [2, 1, 0, 2, 1, 0]
    grey = data.test.x[2]
    assert torch.equal(grey[0], grey[1])
    np.testing.assert_array_equal(data.test.x[0].numpy(), pixels(folder / "val" / "images" / "val_0.JPEG"))


def imagenet(root: Path, size: tuple[int, int] = (40, 30)) -> Path:
    write_tree(root / "imagenet" / "train", {"n01": 3, "n02": 3}, "JPEG", size)
    write_tree(root / "imagenet" / "val", {"n01": 1, "n02": 1}, "JPEG", (30, 44))
    return root / "imagenet"


def test_imagenet_keeps_room_around_its_training_images(tmp_path: Path) -> None:
    imagenet(tmp_path)
    data = load("imagenet", tmp_path)
    assert data.input_shape == (3, 224, 224)
    assert (tuple(data.train.x.shape), data.train.margin) == ((6, 3, 256, 256), 16)
    assert (tuple(data.test.x.shape), data.test.margin) == ((2, 3, 224, 224), 0)
    assert "6 of 1,281,167 training images" in data.notes
    small = load("imagenet", tmp_path, image_size=32)
    assert (small.input_shape, small.train.margin, room_for(32)) == ((3, 32, 32), 2, 2)


def test_a_flat_val_folder_with_the_solution_file(tmp_path: Path) -> None:
    folder = imagenet(tmp_path)
    for k, file in enumerate(sorted((folder / "val").rglob("*.JPEG"))):
        file.rename(folder / "val" / f"ILSVRC2012_val_{k}.JPEG")
    for name in ("n01", "n02"):
        (folder / "val" / name).rmdir()
    solution = folder / "LOC_val_solution.csv"
    with pytest.raises(BadData, match=r"neither it nor .* has val_annotations.txt or LOC_val_solution.csv"):
        load("imagenet", tmp_path)
    solution.write_text("ImageId,PredictionString\nILSVRC2012_val_1,n01 85 1 499 272 n01 1 2 3 4\n")
    with pytest.raises(BadData, match=r"LOC_val_solution.csv does not name the class of .*val_0.JPEG"):
        load("imagenet", tmp_path)
    with solution.open("a") as file:
        file.write("ILSVRC2012_val_0,n02 1 2 3 4\n")
    (folder / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish, Carassius auratus\n")
    data = load("imagenet", tmp_path)
    assert data.test.y.tolist() == [1, 0]
    assert data.class_names == ("tench", "goldfish")
    solution.write_text("ILSVRC2012_val_0,n03 1 2\nILSVRC2012_val_1,n01 1 2\n")
    with pytest.raises(BadData, match="of class 'n03', which train/ does not have"):
        load("imagenet", tmp_path)


def test_what_is_no_image_is_passed_over(photos: Path) -> None:
    before = load(str(photos)).digest
    (photos / "train" / "ant" / "notes.txt").write_text("x")
    (photos / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (photos / "train" / "ant" / "._ant_0.png").write_bytes(b"resource fork")
    (photos / "train" / ".git").mkdir()
    (photos / "README").write_text("x")
    write_image(photos / "train" / "ant" / "deep" / "er" / "UPPER.PNG", 5)
    data = load(str(photos))
    assert len(data.train) == 22, "endings count in any case, at any depth"
    (photos / "train" / "ant" / "deep" / "er" / "UPPER.PNG").unlink()
    assert load(str(photos)).digest == before


def test_classes_that_are_empty_missing_or_strange(photos: Path) -> None:
    for file in (photos / "val" / "bee").iterdir():
        file.unlink()
    assert load(str(photos)).notes == ("1 of 3 classes have no image in val/",)
    (photos / "val" / "bee").rmdir()
    assert load(str(photos)).notes == ("1 of 3 classes have no image in val/",)
    write_tree(photos / "val", {"dog": 1})
    with pytest.raises(BadData, match="dog has images, but train/ has no class 'dog'"):
        load(str(photos))
    (photos / "train" / "dog").mkdir()
    with pytest.raises(BadData, match=r"train/dog has no images; a class needs at least one \(.jpg, .jpeg"):
        load(str(photos))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="absent is not a folder of images"):
        load(str(tmp_path / "absent"))
    with pytest.raises(BadData, match="has no folders; expected one per class"):
        load(str(tmp_path))
    write_image(tmp_path / "one" / "a" / "x.png", 0)
    with pytest.raises(BadData, match="one image cannot be split"):
        load(str(tmp_path / "one"))
    with pytest.raises(BadValue, match="image size is for folders of images; 'digits'"):
        load("digits", image_size=16)


def test_images_of_several_sizes_need_a_size(photos: Path) -> None:
    write_image(photos / "train" / "cat" / "wide.png", 3, (20, 10))
    with pytest.raises(BadData, match=r"differ in size: .* has 12 x 10 pixels and .*wide.png has 20 x 10 pixels; set"):
        load(str(photos))
    data = load(str(photos), image_size=14)
    assert (tuple(data.train.x.shape), tuple(data.test.x.shape)) == ((22, 3, 16, 16), (6, 3, 14, 14))
    assert isinstance(data.train, StreamedSplit)


def test_images_that_have_the_size_already_are_not_resized(tmp_path: Path) -> None:
    write_tree(tmp_path / "square", {"a": 5, "b": 5}, size=(9, 9))
    asked, unasked = load(str(tmp_path / "square"), image_size=9), load(str(tmp_path / "square"))
    assert (asked.digest, asked.train.margin) == (unasked.digest, 0)


def test_a_resized_image_is_the_centred_square_in_its_place(tmp_path: Path) -> None:
    """Of a linear ramp any symmetric filter keeps the values at the pixels' centres."""
    width, height = 120, 80
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    Image.fromarray(np.stack([x * 2, y * 2, 0 * x], 2).astype(np.uint8)).save(tmp_path / "ramp.png")
    for side, part in ((40, 1.0), (35, 0.875), (20, 0.5)):
        out = decode(tmp_path / "ramp.png", Frame(side, side, part)).astype(float)
        step = part * height / side
        centres = (np.arange(side) + 0.5) * step - 0.5
        left, top = (width - part * height) / 2, (height - part * height) / 2
        inside = slice(2, -2)
        np.testing.assert_allclose(out[0][0][inside], 2 * (left + centres)[inside], atol=1)
        np.testing.assert_allclose(out[1][:, 0][inside], 2 * (top + centres)[inside], atol=1)
        assert not out[2].any()


@pytest.mark.parametrize(("mode", "ending"), [("L", "png"), ("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png")])
def test_every_kind_of_pixel_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    given = write_image(tmp_path / f"x.{ending}", 1, (8, 8), mode)
    out = decode(tmp_path / f"x.{ending}", Frame(8, 8))
    assert (out.shape, out.dtype) == ((3, 8, 8), np.uint8)
    if mode == "L":
        np.testing.assert_array_equal(out, np.stack([given] * 3))
    if mode == "RGBA":
        np.testing.assert_array_equal(out, given[..., :3].transpose(2, 0, 1))
    if mode == "LA":
        np.testing.assert_array_equal(out, np.stack([given[..., 0]] * 3))


def test_a_palette_with_transparency_and_a_deep_image(tmp_path: Path) -> None:
    palette = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    palette.save(tmp_path / "p.png", transparency=bytes(range(64)))
    assert decode(tmp_path / "p.png", Frame(8, 8)).shape == (3, 8, 8)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(Damaged, match="mode I;16; only 8 bits a channel"):
        decode(tmp_path / "deep.png", Frame(8, 8))
