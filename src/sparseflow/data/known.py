"""The data sets known by name: each one function that says where its files are and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from sparseflow.core import BadData, BadValue, Catalog, UnknownName
from sparseflow.data import cifar, idx
from sparseflow.data.dataset import Dataset, Split
from sparseflow.data.decode import Watch
from sparseflow.data.files import ROOT_VARIABLE, find_source, partial_note
from sparseflow.data.folder import list_images
from sparseflow.data.image_cache import decoded
from sparseflow.data.npz import read_npz
from sparseflow.data.stratify import fixed_split

datasets: Catalog[Callable[..., Dataset]] = Catalog("data set")
"""Of functions of a root; those with the fact `decoded` also take an image size and a `Watch`."""

_DIGITS = tuple("0123456789")
_PATHS = "or a path: ending in .npz, or with a / (as in ./photos) for a folder of images"


def _quiet(_what: str, _done: int, _of: int) -> None:
    """A `Watch` that says nothing."""


def check_name(name: str) -> str:
    """Return `name` if `load` can tell what it means: a name of the catalog, or a path. Looks at no file.

    Raises:
        UnknownName: otherwise.
    """
    if name not in datasets and not name.endswith(".npz") and "/" not in name:
        raise UnknownName("data set", name, datasets.names, also=_PATHS)
    return name


def is_decoded(name: str) -> bool:
    """Whether the data set of that name comes as image files, which may be resized when they are decoded."""
    if name in datasets:
        return bool(datasets.entry(name).facts.get("decoded", False))
    return "/" in name and not name.endswith(".npz")


def load(name: str, root: str | Path | None = None, *, image_size: int | None = None, watch: Watch = _quiet) -> Dataset:
    """The data set called `name` in the catalog, or the one at the path `name`.

    A name that ends in ".npz" is a file's path, any other with a "/" in it that of a folder of images (`list_images`).

    Args:
        root: the folder that holds the data sets' folders or archives, or one data set's own folder; without it the
            environment variable SPARSEFLOW_DATA. A path does not use it.
        image_size: side in pixels to which the images of a folder are resized; by default they are taken as they are,
            ImageNet's resized to 224.
        watch: told of the progress while images are decoded.

    Raises:
        UnknownName: if the catalog has no such name.
        BadValue: if an image size is given for data that is not decoded.
        BadData: if files are missing or damaged; names the file, what was expected and what was found.
    """
    check_name(name)
    if image_size is not None and not is_decoded(name):
        raise BadValue(f"an image size is for folders of images; {name!r} is read as it is")
    if name in datasets:
        given = root or os.environ.get(ROOT_VARIABLE) or None
        at = None if given is None else Path(given).expanduser()
        return datasets[name](at, image_size, watch) if is_decoded(name) else datasets[name](at)
    path = Path(name).expanduser()
    if name.endswith(".npz"):
        return read_npz(path)
    return _from_images(path.resolve().name, path, image_size, watch)


@datasets.add(
    "digits",
    cite="Alpaydin and Kaynak 1998, UCI optical recognition of handwritten digits; part shipped with scikit-learn",
    needs_root=False,
    flip_ok=False,
    folder="",
)
def digits(root: Path | None) -> Dataset:
    """1,797 embedded handwritten digits of 8 x 8 pixels, 10 classes; a fixed stratified 80/20 split."""
    from sklearn.datasets import load_digits  # takes a second to import, which other data sets need not pay

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 8, 8)
    everything = Split(x, torch.from_numpy(labels.astype(np.int64)))
    train, test = fixed_split(everything.y)
    return Dataset("digits", everything.take(train), everything.take(test), 10, _DIGITS, brightest=16)


@datasets.add(
    "fashion-mnist",
    cite="Xiao et al. 2017, arXiv:1708.07747",
    needs_root=True,
    flip_ok=True,
    folder="fashion-mnist",
)
def fashion_mnist(root: Path | None) -> Dataset:
    """60,000 + 10,000 grey images of clothing, 28 x 28, 10 classes."""
    names = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    return _from_idx("fashion-mnist", root, tuple(names.split(", ")))


@datasets.add(
    "mnist",
    cite="LeCun et al. 1998, Proceedings of the IEEE 86(11)",
    needs_root=True,
    flip_ok=False,
    folder="mnist",
)
def mnist(root: Path | None) -> Dataset:
    """60,000 + 10,000 grey images of handwritten digits, 28 x 28, 10 classes."""
    return _from_idx("mnist", root, _DIGITS)


@datasets.add(
    "cifar-10",
    cite="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    needs_root=True,
    flip_ok=True,
    folder="cifar-10-batches-py",
)
def cifar_10(root: Path | None) -> Dataset:
    """50,000 + 10,000 colour images of animals and vehicles, 32 x 32, 10 classes."""
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    return _from_cifar("cifar-10", root, batches, "test_batch", "batches.meta", "labels", "label_names", 10)


@datasets.add(
    "cifar-100",
    cite="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    needs_root=True,
    flip_ok=True,
    folder="cifar-100-python",
)
def cifar_100(root: Path | None) -> Dataset:
    """50,000 + 10,000 colour images, 32 x 32, 100 fine classes."""
    return _from_cifar("cifar-100", root, ["train"], "test", "meta", "fine_labels", "fine_label_names", 100)


@datasets.add(
    "tiny-imagenet",
    cite="Le and Yang 2015, Tiny ImageNet Visual Recognition Challenge, Stanford CS231N",
    needs_root=True,
    flip_ok=True,
    folder="tiny-imagenet-200",
    decoded=True,
)
def tiny_imagenet(root: Path | None, image_size: int | None, watch: Watch) -> Dataset:
    """100,000 + 10,000 colour images, 64 x 64, 200 classes of ImageNet; tested on its val/."""
    folder = _find("tiny-imagenet", root, ["wnids.txt"])
    return _from_images("tiny-imagenet", folder, image_size, watch, 100_000, 10_000)


@datasets.add(
    "imagenet",
    cite="Russakovsky et al. 2015, arXiv:1409.0575",
    needs_root=True,
    flip_ok=True,
    folder="imagenet",
    decoded=True,
)
def imagenet(root: Path | None, image_size: int | None, watch: Watch) -> Dataset:
    """1,281,167 + 50,000 colour photos, resized to 224 x 224, 1,000 classes; tested on its val/."""
    folder = _find("imagenet", root, ["train"])
    return _from_images("imagenet", folder, image_size or 224, watch, 1_281_167, 50_000)


def _find(name: str, root: Path | None, files: Sequence[str], archive: str | None = None) -> Path:
    others = {entry.facts["folder"] for entry in datasets if entry.name != name}
    return find_source(root, datasets.entry(name).facts["folder"], files, archive=archive, others=others)


def _from_idx(name: str, root: Path | None, class_names: tuple[str, ...]) -> Dataset:
    folder = _find(name, root, idx.FILES)
    train = idx.read_split(folder, "train", len(class_names))
    test = idx.read_split(folder, "t10k", len(class_names))
    _check_same_size(folder, train, test)
    notes = partial_note(len(train), 60_000) + partial_note(len(test), 10_000, "test")
    return Dataset(name, train, test, len(class_names), class_names, datasets.entry(name).facts["flip_ok"], notes)


def _check_same_size(folder: Path, train: Split, test: Split) -> None:
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = [" x ".join(map(str, split.x.shape[2:])) for split in (train, test)]
        raise BadData(f"{folder}: training images are {shapes[0]}, test images {shapes[1]}")


def _from_cifar(
    name: str,
    root: Path | None,
    train_files: Sequence[str],
    test_file: str,
    meta_file: str,
    labels: str,
    label_names: str,
    classes: int,
) -> Dataset:
    wanted = [*train_files, test_file, meta_file]
    source = _find(name, root, wanted[:-1], f"{name}-python.tar.gz")
    files = cifar.read_files(source, wanted)
    train = cifar.read_split(source, files, train_files, labels, classes)
    test = cifar.read_split(source, files, [test_file], labels, classes)
    class_names = cifar.read_class_names(source, files, meta_file, label_names, classes)
    notes = partial_note(len(train), 50_000) + partial_note(len(test), 10_000, "test")
    return Dataset(name, train, test, classes, class_names, datasets.entry(name).facts["flip_ok"], notes)


def _from_images(
    name: str, folder: Path, image_size: int | None, watch: Watch, train: int = 0, test: int = 0
) -> Dataset:
    """A folder of images; `train` and `test` are the official numbers of a known data set."""
    listing = list_images(folder)
    images = decoded(listing, image_size, watch)
    notes = partial_note(len(images.train), train) + partial_note(len(images.test), test, "test") + listing.notes
    flip_ok = name in datasets and datasets.entry(name).facts["flip_ok"]
    return Dataset(
        name, images.train, images.test, len(listing.classes), listing.class_names, flip_ok, notes, images.digest
    )
