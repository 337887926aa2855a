"""Reading every known data set from small files of the authors' format, wherever the root has them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from data_files import (
    cifar_10_files,
    cifar_100_files,
    idx_arrays,
    python2_pickle,
    write_archive,
    write_idx,
    write_pickles,
)
from sparseflow.core import BadData, UnknownName
from sparseflow.data import Dataset, datasets, load


def images_of(*batches: dict[str, object]) -> np.ndarray:
    """Pixel by pixel as the CIFAR page describes a row: 1,024 red values row-major, then green, then blue."""
    rows = np.concatenate([np.asarray(batch["data"]) for batch in batches])
    out = np.empty((len(rows), 3, 32, 32), np.uint8)
    for channel in range(3):
        for line in range(32):
            start = 1024 * channel + 32 * line
            out[:, channel, line] = rows[:, start : start + 32]
    return out


def test_every_entry_has_its_facts_and_a_citation() -> None:
    assert datasets.names == ["digits", "fashion-mnist", "mnist", "cifar-10", "cifar-100", "tiny-imagenet", "imagenet"]
    for entry in datasets:
        assert entry.cite
        assert isinstance(entry.facts["needs_root"], bool)
        assert entry.facts["flip_ok"] is (entry.name not in ("digits", "mnist"))
        assert bool(entry.facts["folder"]) is entry.facts["needs_root"]


def test_digits_are_scikit_learns_split_once_and_for_all() -> None:
    dataset = load("digits", root=None)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (1437, 360, 10)
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.class_names == tuple("0123456789")
    assert not dataset.flip_ok
    images, labels = load_digits(return_X_y=True)
    original = sorted(zip(images.astype(np.uint8).tolist(), labels.tolist(), strict=True))
    both = (dataset.train, dataset.test)
    ours = [(x.flatten().tolist(), y.item()) for s in both for x, y in zip(s.x, s.y, strict=True)]
    assert sorted(ours) == original
    share = dataset.test.y.bincount() / torch.from_numpy(labels).bincount()
    assert ((share - 0.2).abs() < 0.01).all()
    # Changing the split changes every number ever measured on it.
    assert dataset.digest == "8dfde36adce75b9a"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", ["below", "itself"])
def test_idx_files_plain_or_compressed_below_the_root_or_in_it(
    tmp_path: Path, name: str, compressed: bool, place: str
) -> None:
    arrays = idx_arrays()
    write_idx(tmp_path / name if place == "below" else tmp_path, arrays, compressed=compressed)
    dataset = load(name, tmp_path)
    np.testing.assert_array_equal(dataset.train.x[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.train.y.numpy(), arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.test.x[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test.y.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert dataset.input_shape == (1, 5, 6)
    assert dataset.flip_ok is (name == "fashion-mnist")
    assert dataset.notes == ("40 of 60,000 training images", "20 of 10,000 test images")


def test_mnist_is_not_read_as_fashion_mnist(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", idx_arrays(), compressed=True)
    assert load("mnist", tmp_path / "mnist").name == "mnist"
    for root in (tmp_path, tmp_path / "mnist"):
        with pytest.raises(BadData, match="none of train-images-idx3-ubyte"):
            load("fashion-mnist", root)


def check_cifar_10(dataset: Dataset, files: dict[str, dict[str, object]]) -> None:
    batches = [files[name] for name in sorted(files) if name.startswith("data_batch")]
    np.testing.assert_array_equal(dataset.train.x.numpy(), images_of(*batches))
    assert dataset.train.y.tolist() == [label for batch in batches for label in batch["labels"]]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(dataset.test.x.numpy(), images_of(files["test_batch"]))
    assert dataset.test.y.tolist() == files["test_batch"]["labels"]
    assert dataset.class_names == tuple(f"kind {i}" for i in range(10))
    assert (dataset.classes, dataset.flip_ok) == (10, True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cifar_10_from_all_five_batches_at_any_protocol(tmp_path: Path, protocol: int) -> None:
    files = cifar_10_files()
    write_pickles(tmp_path / "cifar-10-batches-py", files, protocol)
    dataset = load("cifar-10", tmp_path)
    check_cifar_10(dataset, files)
    assert len(dataset.train) == 100
    assert load("cifar-10", tmp_path / "cifar-10-batches-py").digest == dataset.digest


@pytest.mark.parametrize("last", ["data_batch_1", "test_batch", "batches.meta"])
def test_cifar_10_from_the_archive_in_any_order(tmp_path: Path, last: str) -> None:
    files = cifar_10_files()
    write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files, last=last)
    check_cifar_10(load("cifar-10", tmp_path), files)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


def test_a_part_of_cifar_10_is_read_with_a_note(tmp_path: Path) -> None:
    files = cifar_10_files(batches=2)
    write_pickles(tmp_path, files)
    dataset = load("cifar-10", tmp_path)
    check_cifar_10(dataset, files)
    assert dataset.notes[0] == "40 of 50,000 training images"


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    files = cifar_10_files(batches=1)
    write_pickles(tmp_path, files)
    batch = files["data_batch_1"]
    (tmp_path / "data_batch_1").write_bytes(python2_pickle(batch["labels"], batch["data"]))  # type: ignore[arg-type]
    check_cifar_10(load("cifar-10", tmp_path), files)


def test_class_names_are_optional(tmp_path: Path) -> None:
    files = cifar_10_files(batches=1)
    del files["batches.meta"]
    write_pickles(tmp_path, files)
    assert load("cifar-10", tmp_path).class_names is None


@pytest.mark.parametrize("archive", [False, True])
def test_cifar_100_with_its_fine_labels(tmp_path: Path, archive: bool) -> None:
    files = cifar_100_files()
    if archive:
        write_archive(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", files)
    else:
        write_pickles(tmp_path / "cifar-100-python", files)
    dataset = load("cifar-100", tmp_path)
    np.testing.assert_array_equal(dataset.train.x.numpy(), images_of(files["train"]))
    np.testing.assert_array_equal(dataset.test.x.numpy(), images_of(files["test"]))
    assert dataset.train.y.tolist() == files["train"]["fine_labels"]
    assert dataset.classes == 100
    assert dataset.class_names is not None
    assert dataset.class_names[99] == "kind 99"


def test_the_root_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "here" / "mnist", idx_arrays(1), compressed=True)
    write_idx(tmp_path / "there" / "mnist", idx_arrays(2), compressed=True)
    monkeypatch.setenv("SPARSEFLOW_DATA", str(tmp_path / "here"))
    by_environment = load("mnist")
    assert by_environment.digest == load("mnist", tmp_path / "here").digest
    assert by_environment.digest != load("mnist", str(tmp_path / "there")).digest


def test_without_a_root_the_error_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv("SPARSEFLOW_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("SPARSEFLOW_DATA", value)
        with pytest.raises(BadData, match="pass --data-root or set SPARSEFLOW_DATA to the folder that has mnist/"):
            load("mnist")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"cifar-10, .*\.npz, or with a / .*\); did you mean 'cifar-10'"):
        load("cifar10")
