"""The authors' own files, where this machine has them: sizes, first labels, and statistics that the field quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from real_data import real_data_root
from sparseflow.data import Dataset, datasets, load

ROOT = real_data_root()


def real(name: str) -> Dataset:
    folder = datasets.entry(name).facts["folder"]
    if ROOT is None or not (Path(ROOT) / folder).is_dir():
        pytest.skip(f"no {folder}/ in SPARSEFLOW_DATA or in shared/data beside the repository")
    return load(name, ROOT)


# Mean and standard deviation on the scale 0 .. 1 that torchvision's and PyTorch's examples use.
@pytest.mark.parametrize(
    ("name", "mean", "std", "first"),
    [("mnist", 0.1307, 0.3081, [5, 0, 4, 1, 9]), ("fashion-mnist", 0.2860, 0.3530, [9, 0, 0, 3, 0])],
)
def test_mnist_and_fashion_mnist(name: str, mean: float, std: float, first: list[int]) -> None:
    dataset = real(name)
    assert (len(dataset.train), len(dataset.test), dataset.notes) == (60_000, 10_000, ())
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.train.y[:5].tolist() == first
    assert dataset.mean.item() / 255 == pytest.approx(mean, abs=5e-5)
    assert dataset.std.item() / 255 == pytest.approx(std, abs=5e-5)


# The quoted values are those of all 50,000 images; a part of 10,000 is allowed a sampling error.
@pytest.mark.parametrize(
    ("name", "mean", "std", "names"),
    [
        ("cifar-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), ("airplane", "automobile", "bird")),
        ("cifar-100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), ("apple", "aquarium_fish", "baby")),
    ],
)
def test_cifar(name: str, mean: tuple[float, ...], std: tuple[float, ...], names: tuple[str, ...]) -> None:
    dataset = real(name)
    whole = len(dataset.train) == 50_000
    assert len(dataset.test) == 10_000
    assert dataset.notes == (() if whole else (f"{len(dataset.train):,} of 50,000 training images",))
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.test.y.bincount().tolist() == [10_000 // dataset.classes] * dataset.classes
    assert dataset.class_names is not None
    assert dataset.class_names[:3] == names
    tolerance = 5e-5 if whole else 5e-3
    assert (dataset.mean / 255).tolist() == pytest.approx(mean, abs=tolerance)
    assert (dataset.std / 255).tolist() == pytest.approx(std, abs=tolerance)
