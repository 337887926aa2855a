"""crop_flip against a loop over images that pads, crops and mirrors one at a time with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, stream
from sparseflow.data import crop_flip


def slow_crop_flip(x: np.ndarray, generator: torch.Generator, padding: int, flip: bool) -> np.ndarray:
    offsets = torch.randint(0, 2 * padding + 1, (len(x), 2), generator=generator).tolist()
    mirrors = torch.randint(0, 2, (len(x),), generator=generator).tolist()
    out = []
    for image, (top, left), mirror in zip(x, offsets, mirrors, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, top : top + x.shape[2], left : left + x.shape[3]]
        out.append(crop[:, :, ::-1] if flip and mirror else crop)
    return np.stack(out)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(0, 7),
    flip=st.booleans(),
    real=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_same_as_one_image_at_a_time(
    shape: tuple[int, int, int, int], padding: int, flip: bool, real: bool, seed: int
) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8))
    x = x.float() if real else x
    before = x.clone()
    out = crop_flip(x, stream(seed, "augment"), padding=padding, flip=flip)
    assert out.dtype == x.dtype
    assert out.is_contiguous()
    np.testing.assert_array_equal(out.numpy(), slow_crop_flip(x.numpy(), stream(seed, "augment"), padding, flip))
    assert torch.equal(x, before)


def test_strided_input_and_an_empty_batch() -> None:
    x = torch.arange(2 * 5 * 4 * 3).to(torch.uint8).reshape(2, 5, 4, 3).permute(0, 3, 1, 2)
    out = crop_flip(x, stream(1, "augment"), padding=2, flip=True)
    np.testing.assert_array_equal(out.numpy(), slow_crop_flip(x.numpy(), stream(1, "augment"), 2, True))
    assert crop_flip(x[:0], stream(1, "augment"), flip=True).shape == (0, 3, 5, 4)


def test_offsets_and_mirrors_are_uniform_and_per_image() -> None:
    # One bright pixel in the middle column but one: where it lands tells the offset, and on which side the mirror.
    x = torch.zeros(20_000, 1, 9, 9, dtype=torch.uint8)
    x[:, 0, 4, 3] = 255
    x[:, 0, 4, 4] = 100
    out = crop_flip(x, stream(0, "augment"), padding=2, flip=True)
    bright, grey = (out == 255).nonzero(), (out == 100).nonzero()
    mirrored = bright[:, 3] > grey[:, 3]
    assert abs(mirrored.float().mean().item() - 0.5) < 5 * (0.25 / 20_000) ** 0.5
    row, column = 4 - grey[:, 2], torch.where(mirrored, grey[:, 3] - 4, 4 - grey[:, 3])
    counts = torch.bincount((row + 2) * 5 + column + 2, minlength=25).double()
    expected = 20_000 / 25
    assert len(counts) == 25
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi-square with 24 degrees of freedom: p about 1e-4
    unmirrored = crop_flip(x, stream(0, "augment"), padding=2, flip=False)
    assert ((unmirrored == 255).nonzero()[:, 3] < (unmirrored == 100).nonzero()[:, 3]).all()


def test_the_stream_decides_and_moves_on() -> None:
    x = torch.randint(0, 256, (32, 3, 8, 8), generator=stream(0, "x")).to(torch.uint8)
    first, again = (crop_flip(x, stream(5, "augment"), flip=True) for _ in range(2))
    assert torch.equal(first, again)
    generator = stream(5, "augment")
    assert torch.equal(crop_flip(x, generator, flip=True), first)
    assert not torch.equal(crop_flip(x, generator, flip=True), first)
    assert not torch.equal(crop_flip(x, stream(6, "augment"), flip=True), first)


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)], ids=str
)
def test_what_is_not_a_batch_of_images_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(BadValue, match="crop_flip takes uint8 or floating-point images"):
        crop_flip(x, stream(0, "augment"), flip=False)


def test_negative_padding_is_refused() -> None:
    with pytest.raises(BadValue, match="padding must be at least 0, got -1"):
        crop_flip(torch.zeros(1, 1, 2, 2), stream(0, "augment"), padding=-1, flip=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_does_not_change_the_result() -> None:
    x = torch.randint(0, 256, (32, 3, 8, 8), generator=stream(0, "x")).to(torch.uint8)
    on_cpu = crop_flip(x, stream(5, "augment"), flip=True)
    assert torch.equal(crop_flip(x.cuda(), stream(5, "augment"), flip=True).cpu(), on_cpu)
