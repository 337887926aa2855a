"""crop_flip against a loop over images that pads, crops and mirrors one at a time with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, stream
from sparseflow.data import crop_flip, crops


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


# Every crop of the catalog -----------------------------------------------------------------------------------------


def images(n: int = 12, height: int = 16, width: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=stream(0, "x")).to(torch.uint8)


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", crops.names)
def test_every_crop_has_its_size_its_stream_and_its_scale(name: str, flip: bool, margin: int) -> None:
    x = images()
    before = x.clone()
    first, again, other = (crops[name](x, stream(k, "augment"), margin=margin, flip=flip) for k in (0, 0, 1))
    assert first.shape == (12, 3, 16 - 2 * margin, 20 - 2 * margin)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert 200 < first.max() <= 255
    assert torch.equal(x, before)
    assert crops[name](x.double(), stream(0, "augment"), margin=margin, flip=flip).dtype == torch.float64
    with pytest.raises(BadValue, match="takes uint8 or floating-point images"):
        crops[name](torch.zeros(3, 8), stream(0, "augment"), margin=0, flip=flip)


@pytest.mark.parametrize("name", crops.names)
def test_flip_mirrors_half_of_the_images_and_moves_no_window(name: str) -> None:
    # Symmetric windows of a ramp: mirrored or not is all that can differ.
    x = (torch.arange(40, dtype=torch.float64).expand(2000, 1, 40, 40)).clone()
    straight, mixed = (crops[name](x, stream(0, "augment"), margin=4, flip=flip) for flip in (False, True))
    same, turned = ((mixed - other).abs().amax((1, 2, 3)) < 1e-6 for other in (straight, straight.flip(3)))
    assert (same ^ turned).all()
    assert abs(turned.double().mean().item() - 0.5) < 5 * (0.25 / 2000) ** 0.5


def test_a_crop_within_the_margin_is_a_window_of_the_image() -> None:
    x = images(200)
    out = crops["pad"](x, stream(3, "augment"), margin=2, flip=False)
    offsets = torch.randint(0, 5, (200, 2), generator=stream(3, "augment")).tolist()
    assert {tuple(at) for at in offsets} == {(i, j) for i in range(5) for j in range(5)}
    for image, crop, (top, left) in zip(x, out, offsets, strict=True):
        assert torch.equal(crop, image[:, top : top + 12, left : left + 16])


def slow_resized_crop(x: np.ndarray, draws: np.ndarray, margin: int, flip: bool) -> np.ndarray:
    """One pixel at a time: windows of the drawn area and ratio, read by linear interpolation between pixel centres."""
    _, channels, height, width = x.shape
    out = np.empty((len(x), channels, height - 2 * margin, width - 2 * margin))
    for image, crop, (area, ratio, down, right, turn) in zip(x, out, draws, strict=True):
        shape = np.exp((2 * ratio - 1) * np.log(4 / 3))
        size = (0.08 + 0.92 * area) * height * width
        h, w = min((size / shape) ** 0.5, height), min((size * shape) ** 0.5, width)
        rows = down * (height - h) + (np.arange(crop.shape[1]) + 0.5) * h / crop.shape[1] - 0.5
        columns = right * (width - w) + (np.arange(crop.shape[2]) + 0.5) * w / crop.shape[2] - 0.5
        if flip and turn < 0.5:
            columns = columns[::-1]
        for channel in range(channels):
            along = np.stack([np.interp(columns, np.arange(width), line) for line in image[channel]])
            crop[channel] = np.stack([np.interp(rows, np.arange(height), line) for line in along.T]).T
    return out


@pytest.mark.parametrize(("margin", "flip"), [(0, True), (3, True), (2, False)])
def test_resized_crops_are_those_of_a_loop_over_pixels(margin: int, flip: bool) -> None:
    x = images(30).double()
    draws = torch.rand(30, 5, generator=stream(7, "augment"), dtype=torch.float64).numpy()
    out = crops["resized"](x, stream(7, "augment"), margin=margin, flip=flip)
    np.testing.assert_allclose(out.numpy(), slow_resized_crop(x.numpy(), draws, margin, flip), atol=1e-9)
    single = crops["resized"](x.to(torch.uint8), stream(7, "augment"), margin=margin, flip=flip)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), out.numpy(), atol=2e-2)
