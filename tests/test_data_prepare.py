"""prepare: limits, validation splits, statistics of what is trained on, normalised batches, the fixed probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparseflow.core import BadValue
from sparseflow.data import Dataset, Prepared, Split, load, prepare


def rows(split: Split) -> list[bytes]:
    return [row.numpy().tobytes() for row in split.x]


@pytest.fixture(scope="module")
def numbered() -> Dataset:
    """300 training images that all differ, in three classes of 150, 100 and 50."""
    number = torch.arange(300)
    x = torch.stack([number // 256, number % 256], 1).to(torch.uint8).reshape(300, 1, 1, 2)
    y = torch.repeat_interleave(torch.arange(3), torch.tensor([150, 100, 50]))
    return Dataset("numbered", Split(x, y), Split(x[::10], y[::10]), 3, flip_ok=True)


def test_without_options_the_splits_are_the_data_sets_own(numbered: Dataset) -> None:
    prepared = prepare(numbered)
    assert torch.equal(prepared.train.x, numbered.train.x)
    assert torch.equal(prepared.test.y, numbered.test.y)
    assert prepared.val is None
    assert (prepared.digest, prepared.classes, prepared.flip_ok) == (numbered.digest, 3, True)
    assert (prepared.input_shape, prepared.input_size) == ((1, 1, 2), 2)
    assert prepared.device == torch.device("cpu")


def test_train_limit_is_stratified_and_the_same_for_every_seed(numbered: Dataset) -> None:
    first, second = (prepare(numbered, train_limit=61, seed=seed) for seed in (0, 1))
    assert first.train.y.bincount().tolist() == [31, 20, 10]  # 30.5, 20.33, 10.17
    assert rows(first.train) == rows(second.train)
    assert set(rows(first.train)) < set(rows(numbered.train))
    assert len(first.test) == len(numbered.test)


def test_test_limit_is_stratified_and_leaves_training_alone(numbered: Dataset) -> None:
    first, second = (prepare(numbered, test_limit=21, seed=seed) for seed in (0, 1))
    whole = numbered.test.y.bincount()
    assert len(first.test) == 21
    assert all(
        abs(n - 21 * int(of) / len(numbered.test)) < 1 for n, of in zip(first.test.y.bincount(), whole, strict=True)
    )
    assert rows(first.test) == rows(second.test)
    assert set(rows(first.test)) < set(rows(numbered.test))
    assert torch.equal(first.train.x, numbered.train.x)


def test_validation_is_taken_out_of_the_limited_training_images_by_seed(numbered: Dataset) -> None:
    limited = set(rows(prepare(numbered, train_limit=100).train))
    first, again, other = (prepare(numbered, train_limit=100, val_fraction=0.2, seed=seed) for seed in (4, 4, 5))
    assert first.val is not None
    assert again.val is not None
    assert other.val is not None
    assert first.val.y.bincount().tolist() == [10, 7, 3]
    assert set(rows(first.train)) | set(rows(first.val)) == limited
    assert len(first.train) + len(first.val) == 100
    assert rows(first.val) == rows(again.val)
    assert rows(first.val) != rows(other.val)


def test_statistics_are_of_the_images_that_remain_for_training(numbered: Dataset) -> None:
    prepared = prepare(numbered, train_limit=100, val_fraction=0.3, seed=1, dtype=torch.float64)
    raw = prepared.train.x.numpy().astype(np.float64)
    np.testing.assert_allclose(prepared.mean.numpy(), raw.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(prepared.std.numpy(), raw.std((0, 2, 3)), rtol=1e-14)
    assert abs(prepared.mean.item() - numbered.mean.item()) > 1e-3


def three_channels(dtype: torch.dtype) -> Prepared:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 3, 4, 5)).astype(np.uint8))
    x[:, 1] //= 8
    split = Split(x, torch.arange(64) % 4)
    return prepare(Dataset("colour", split, split, 4), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 2**-8)]
)
def test_batches_are_normalised_per_channel(dtype: torch.dtype, tolerance: float) -> None:
    prepared = three_channels(dtype)
    at = torch.tensor([5, 5, 63, 0])
    x, y = prepared.batch(prepared.train, at)
    raw = prepared.train.x.numpy().astype(np.float64)
    expected = (raw[at] - raw.mean((0, 2, 3), keepdims=True)) / raw.std((0, 2, 3), keepdims=True)
    assert x.dtype == dtype
    np.testing.assert_allclose(x.double().numpy(), expected, rtol=tolerance, atol=tolerance)
    assert y.tolist() == [1, 1, 3, 0]


def test_unit_scaling_maps_pixels_to_between_0_and_1() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 3, 4, 5)).astype(np.uint8))
    split = Split(x, torch.arange(64) % 4)
    prepared = prepare(Dataset("colour", split, split, 4), dtype=torch.float64, scaling="unit")
    found, _ = prepared.batch(prepared.train, torch.arange(64))
    np.testing.assert_allclose(found.numpy(), x.numpy() / 255, rtol=1e-15)
    digits = prepare(load("digits"), scaling="unit")
    assert digits.batch(digits.train, torch.arange(500))[0].aminmax() == (0.0, 1.0)
    features = Split(torch.rand(8, 5), torch.arange(8) % 2)
    with pytest.raises(BadValue, match="for images, and 'features' has 5 features"):
        prepare(Dataset("features", features, features, 2), scaling="unit")


def test_normalising_features_leaves_the_raw_values_alone() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype(np.float32))
    split = Split(x, torch.arange(50) % 2)
    prepared = prepare(Dataset("features", split, split, 2))
    before = x.clone()
    normalised = prepared.normalise(prepared.train.x)
    assert torch.equal(x, before)
    np.testing.assert_allclose(normalised.mean(0).numpy(), 0.0, atol=1e-6)
    np.testing.assert_allclose(normalised.std(0, correction=0).numpy(), 1.0, rtol=1e-6)


def test_constant_channels_become_zero_not_nan() -> None:
    split = Split(torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    prepared = prepare(Dataset("constant", split, split, 1))
    assert prepared.normalise(split.x).eq(0).all()


def test_probe_is_a_fixed_stratified_sample_of_raw_training_images(numbered: Dataset) -> None:
    x, y = prepare(numbered, seed=0).probe(60)
    again, _ = prepare(numbered, seed=9).probe(60)
    assert y.bincount().tolist() == [30, 20, 10]
    assert x.dtype == torch.uint8
    assert torch.equal(x, again)
    assert len(prepare(numbered, train_limit=50).probe()[1]) == 50
    with pytest.raises(BadValue, match="probe examples must be at least 1, got 0"):
        prepare(numbered).probe(0)


def test_the_fixed_samples_of_the_digits_stay_what_they_are() -> None:
    """Another subset or probe would change results that are compared with earlier ones."""
    limited = prepare(load("digits"), train_limit=100)
    probe = prepare(load("digits")).probe(100)
    digests = [Dataset("sample", split, limited.test, 10).digest for split in (limited.train, Split(*probe))]
    assert digests == ["ade4b993957805f5", "ac0c01569a6d5e05"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_limit": 2}, "train_limit 2 is less than the 3 classes"),
        ({"train_limit": 301}, "train_limit 301 is more than the 300 training examples"),
        ({"test_limit": 2}, "test_limit 2 is less than the 3 classes"),
        ({"test_limit": 1000}, "test_limit 1000 is more than the [0-9]+ test examples"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\), got 1"),
        ({"val_fraction": -0.1}, r"val_fraction must be in \[0, 1\), got -0.1"),
        ({"val_fraction": float("nan")}, "got nan"),
        ({"val_fraction": 0.001}, "puts 0 into validation"),
        ({"val_fraction": 0.999}, "puts 300 into validation"),
        ({"dtype": torch.int64}, "floating-point type, got torch.int64"),
    ],
)
def test_bad_options_name_the_numbers(numbered: Dataset, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        prepare(numbered, **options)  # type: ignore[arg-type]


def test_digits_can_be_learned_from_prepared_batches() -> None:
    """Inputs and labels still belong together after the limit, the split and the batching."""
    prepared = prepare(load("digits"), train_limit=800, val_fraction=0.1)
    everything = torch.arange(len(prepared.train))
    x, y = prepared.batch(prepared.train, everything)
    test_x, test_y = prepared.batch(prepared.test, torch.arange(len(prepared.test)))
    centres = torch.stack([x[y == label].mean(0).flatten() for label in range(10)])
    guess = torch.cdist(test_x.flatten(1), centres).argmin(1)
    assert (guess == test_y).float().mean() > 0.8
