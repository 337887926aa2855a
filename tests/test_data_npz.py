"""Any .npz with x and y: layouts, spellings, the fixed split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sparseflow.data import load


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((20, 5, 6), None),
        ((20, 3, 5, 6), (0, 1, 2, 3)),
        ((20, 1, 5, 6), (0, 1, 2, 3)),
        ((20, 7, 5, 6), (0, 1, 2, 3)),
        ((20, 3, 5, 3), (0, 1, 2, 3)),
        ((20, 5, 6, 3), (0, 3, 1, 2)),
        ((20, 5, 6, 1), (0, 3, 1, 2)),
    ],
    ids=str,
)
def test_layouts_of_images(tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    x, y = pixels(*shape), np.arange(20) % 4
    np.savez(tmp_path / "own.npz", x=x, y=y, x_test=x[:4], y_test=y[:4])
    dataset = load(str(tmp_path / "own.npz"))
    expected = x[:, None] if axes is None else x.transpose(axes)
    np.testing.assert_array_equal(dataset.train.x.numpy(), expected)
    np.testing.assert_array_equal(dataset.test.x.numpy(), expected[:4])
    assert (dataset.name, dataset.classes, dataset.flip_ok, dataset.notes) == ("own", 4, False, ())
    assert dataset.train.x.is_contiguous()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_features_become_float32(tmp_path: Path, dtype: type, order: str) -> None:
    x = (np.random.default_rng(0).normal(0, 3, (30, 4)) ** 2).astype(dtype)
    np.savez_compressed(
        tmp_path / "own.npz",
        x_train=np.asarray(x, order=order),  # type: ignore[call-overload]
        y_train=np.arange(30, dtype=np.uint16) % 3,
        x_test=x[:6],
        y_test=np.arange(6, dtype=np.int8) % 3,
    )
    dataset = load(str(tmp_path / "own.npz"))
    assert dataset.train.x.dtype == torch.float32
    assert dataset.input_shape == (4,)
    np.testing.assert_array_equal(dataset.train.x.numpy(), x.astype(np.float32))
    assert dataset.test.y.tolist() == [0, 1, 2, 0, 1, 2]


def test_without_test_arrays_a_fixed_stratified_split_is_made(tmp_path: Path) -> None:
    number = np.arange(100, dtype=np.float32)
    y = np.repeat([0, 1, 2], [50, 30, 20])
    np.savez(tmp_path / "own.npz", x=number[:, None], y=y)
    dataset = load(str(tmp_path / "own.npz"))
    assert dataset.train.y.bincount().tolist() == [40, 24, 16]
    assert dataset.test.y.bincount().tolist() == [10, 6, 4]
    both = torch.cat([dataset.train.x, dataset.test.x]).flatten().long()
    assert sorted(both.tolist()) == list(range(100))
    assert y[both].tolist() == torch.cat([dataset.train.y, dataset.test.y]).tolist()
    assert dataset.digest == load(str(tmp_path / "own.npz")).digest
    assert dataset.notes == ("no test arrays in own.npz: a fixed stratified 80/20 split",)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "own.npz", x=np.eye(4), y=[0, 1, 0, 1])
    assert load("~/own.npz").classes == 2
