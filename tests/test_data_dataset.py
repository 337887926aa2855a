"""Split and Dataset: what they accept, their statistics against NumPy, and their digest."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from sparseflow.core import BadValue
from sparseflow.data import Dataset, Split


def images(n: int = 12, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    return Split(
        torch.from_numpy(rng.integers(0, 256, (n, 2, 3, 4)).astype(np.uint8)), torch.from_numpy(np.arange(n) % 3)
    )


def features(x: np.ndarray) -> Dataset:
    split = Split(torch.from_numpy(x.astype(np.float32)), torch.arange(len(x)) % 2)
    return Dataset("features", split, split, 2)


def test_shapes_and_sizes() -> None:
    dataset = Dataset("small", images(), images(5, 1), 3)
    assert dataset.input_shape == (2, 3, 4)
    assert dataset.input_size == 24
    assert (len(dataset.train), len(dataset.test)) == (12, 5)
    assert features(np.ones((4, 7))).input_shape == (7,)


def test_statistics_of_images_are_those_of_numpy_on_the_training_split() -> None:
    dataset = Dataset("small", images(), images(5, 1), 3)
    raw = dataset.train.x.numpy().astype(np.float64)
    assert dataset.mean.dtype == dataset.std.dtype == torch.float64
    np.testing.assert_allclose(dataset.mean.numpy(), raw.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(dataset.std.numpy(), raw.std((0, 2, 3)), rtol=1e-14)


def test_statistics_of_features_are_those_of_numpy_over_many_chunks() -> None:
    x = np.random.default_rng(0).normal(1000.0, [1e-2, 1.0, 50.0], (10_001, 3)).astype(np.float32)
    dataset = features(x)
    np.testing.assert_allclose(dataset.mean.numpy(), x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(dataset.std.numpy(), x.astype(np.float64).std(0), rtol=1e-9)


def test_a_constant_channel_or_feature_has_standard_deviation_one() -> None:
    x = torch.full((4, 2, 2, 2), 7, dtype=torch.uint8)
    x[0, 1] = 9
    split = Split(x, torch.zeros(4, dtype=torch.int64))
    assert Dataset("constant", split, split, 1).std.tolist() == [1.0, pytest.approx(3**0.5 / 2)]
    # 0.1 is not a binary fraction; rounding in the mean of many copies must not pass for a spread.
    assert features(np.full((10_001, 1), 0.1)).std.tolist() == [1.0]


def test_digest_is_sha256_over_types_shapes_and_bytes() -> None:
    dataset = Dataset("small", images(), images(5, 1), 3)
    text = b""
    for split in (dataset.train, dataset.test):
        text += f"torch.uint8 {tuple(split.x.shape)};".encode() + split.x.numpy().tobytes()
        text += f"torch.int64 ({len(split)},);".encode() + split.y.numpy().tobytes()
    assert dataset.digest == hashlib.sha256(text).hexdigest()[:16]


def test_digest_follows_the_content_not_the_name() -> None:
    train, test = images(), images(5, 1)
    digest = Dataset("a", train, test, 3).digest
    assert Dataset("b", images(), images(5, 1), 3).digest == digest
    changed = train.y.clone()
    changed[0] = 2
    assert Dataset("a", Split(train.x, changed), test, 3).digest != digest
    assert Dataset("a", train, images(5, 2), 3).digest != digest


def test_digest_sees_values_not_memory_layout() -> None:
    train, test = images(), images(5, 1)
    strided = Split(train.x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2), train.y)
    assert not strided.x.is_contiguous()
    assert Dataset("a", strided, test, 3).digest == Dataset("a", train, test, 3).digest


def test_take_keeps_order_and_repeats() -> None:
    split = images()
    taken = split.take(torch.tensor([4, 0, 4]))
    assert torch.equal(taken.x, torch.stack([split.x[4], split.x[0], split.x[4]]))
    assert taken.y.tolist() == [1, 0, 1]
    assert len(split.take(torch.tensor([], dtype=torch.int64))) == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), "x must be uint8"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "x must be uint8"),
        (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64), "x must be uint8"),
        (torch.zeros(3, 2), torch.zeros(3), "y must be int64"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), "y must be int64"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), "3 examples but y has 4"),
    ],
)
def test_a_split_of_another_shape_is_refused(x: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        Split(x, y)


def test_a_data_set_that_contradicts_itself_is_refused() -> None:
    train, test = images(), images(5, 1)
    empty = train.take(torch.tensor([], dtype=torch.int64))
    with pytest.raises(BadValue, match="no test examples"):
        Dataset("bad", train, empty, 3)
    with pytest.raises(BadValue, match=r"training labels span 0 \.\. 2, expected 0 \.\. 1"):
        Dataset("bad", train, test, 2)
    with pytest.raises(BadValue, match=r"test labels span -1"):
        Dataset("bad", train, Split(test.x, test.y - 1), 3)
    with pytest.raises(BadValue, match="2 class names for 3 classes"):
        Dataset("bad", train, test, 3, ("a", "b"))
    with pytest.raises(BadValue, match=r"shape \(2, 3, 4\), test examples \(2, 4, 3\)"):
        Dataset("bad", train, Split(test.x.transpose(2, 3), test.y), 3)
