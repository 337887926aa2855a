"""Streamed splits: the numbers of in-memory ones bit for bit, and no more memory than a batch takes."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_files import write_image
from sparseflow.core import BadData, BadValue, stream
from sparseflow.data import Dataset, MappedImages, Split, StreamedSplit, load, prepare
from sparseflow.data.statistics import mean_std, pixel_sums
from sparseflow.study import DataCache, RunSpec, Surroundings, execute, validate


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of photos of many sizes, 90 in all."""
    folder = tmp_path_factory.mktemp("streamed") / "photos"
    for k in range(90):
        write_image(folder / "abc"[k % 3] / f"{k}.png", k, (14 + k % 5, 12 + k % 7))
    return folder


@pytest.fixture(scope="module")
def streamed(photos: Path) -> Dataset:
    return load(str(photos), image_size=14)


def in_memory(data: Dataset) -> Dataset:
    train, test = (Split(split.x.clone(), split.y.clone(), split.margin) for split in (data.train, data.test))
    return replace(data, train=train, test=test, known_digest="")


def test_digest_and_statistics_are_those_of_the_same_images_in_memory(streamed: Dataset) -> None:
    held = in_memory(streamed)
    assert isinstance(streamed.train, StreamedSplit)
    assert streamed.train.margin == 1
    assert streamed.known_digest == held.digest
    assert torch.equal(streamed.mean, held.mean)
    assert torch.equal(streamed.std, held.std)
    raw = held.train.x.numpy().astype(np.float64)
    np.testing.assert_allclose(held.std.numpy(), raw.std((0, 2, 3)), rtol=1e-13)


def test_parts_of_parts_are_views_of_the_file(streamed: Dataset) -> None:
    first = streamed.train.part(torch.tensor([5, 3, 8, 3]))
    second = first.part(torch.tensor([3, 0]))
    assert second.x.data_ptr() == streamed.train.x.data_ptr()
    assert torch.equal(second.take(torch.tensor([1, 0])).x, streamed.train.x[[5, 3]])
    assert torch.equal(second.y, streamed.train.y[[3, 5]])
    assert torch.equal(second.mean_std()[1], mean_std(streamed.train.x[[3, 5]])[1])
    assert torch.equal(second.whole().x, streamed.train.x[[3, 5]])


def test_limited_and_validation_splits_stay_in_the_file_and_agree(streamed: Dataset) -> None:
    options = {"train_limit": 60, "val_fraction": 0.25, "seed": 3}
    ours, held = prepare(streamed, **options), prepare(in_memory(streamed), **options)
    assert ours.val is not None
    assert held.val is not None
    for mine, other in ((ours.train, held.train), (ours.val, held.val), (ours.test, held.test)):
        assert isinstance(mine, StreamedSplit)
        assert len(mine) == len(other)
        at = torch.arange(len(mine)).flip(0)
        assert all(torch.equal(a, b) for a, b in zip(ours.batch(mine, at), held.batch(other, at), strict=True))
    assert torch.equal(ours.mean, held.mean)
    assert torch.equal(ours.probe(20)[0], held.probe(20)[0])
    assert ours.probe(20)[0].shape == (20, 3, 14, 14)
    assert torch.equal(ours.example(), held.batch(held.train, torch.tensor([0]))[0])
    assert ours.digest == held.digest


def spec_for(photos: Path, **sections: dict[str, object]) -> RunSpec:
    content: dict[str, dict[str, object]] = {
        "data": {"name": str(photos), "image_size": 14, "val_fraction": 0.2},
        "model": {"depth": 3, "width": 16, "norm": "batch"},
        "optimizer": {"lr": 0.05},
        "train": {"epochs": 2, "batch_size": 16},
        "measure": {"points": 3, "probe_size": 40},
    }
    for name, fields in sections.items():
        content[name] = {**content.get(name, {}), **fields}
    return validate(RunSpec, content)


@pytest.mark.parametrize("kept", [True, False], ids=["small enough to keep", "streamed"])
@pytest.mark.parametrize("stack", ["auto", "never"])
@pytest.mark.parametrize(
    "data", [{}, {"augment": True}, {"augment": True, "crop": "resized"}, {"train_limit": 50}], ids=str
)
def test_a_whole_training_is_the_same_bit_for_bit(
    photos: Path, streamed: Dataset, data: dict[str, object], stack: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(sys.modules["sparseflow.data.prepare"], "KEPT_BYTES", 0)
    spec = spec_for(photos, data=data, train={"stack": stack})
    results, rows = [], []
    for dataset in (streamed, in_memory(streamed)):
        cache = DataCache(Surroundings())
        cache._datasets[spec.data.name, spec.data.image_size] = dataset
        rows.append([])
        results.append(execute(spec, Surroundings(), cache, rows[-1].extend))
    assert results[0].status == "finished"
    assert results[0].stacked == (stack == "auto")
    assert results[0].digest == results[1].digest
    assert rows[0] == rows[1]
    assert results[0].data_digest == results[1].data_digest


def test_one_process_keeps_the_sizes_of_a_folder_apart(photos: Path) -> None:
    cache = DataCache(Surroundings())
    specs = [spec_for(photos, data={"image_size": size, "val_fraction": 0.0}) for size in (14, 9, 14)]
    assert [cache.prepared(spec).input_shape for spec in specs] == [(3, 14, 14), (3, 9, 9), (3, 14, 14)]
    assert cache.dataset(specs[0].data) is cache.dataset(specs[2].data)


@pytest.mark.parametrize("parts", [0, 1, 2, 5])
def test_every_part_is_announced_once_and_before_its_turn(
    streamed: Dataset, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[list[int]] = []
    monkeypatch.setattr(MappedImages, "announce", lambda self, rows: announced.append(rows.tolist()))
    whole = streamed.train
    assert isinstance(whole, StreamedSplit)
    split = whole.part(torch.arange(40).flip(0))
    wanted = [torch.arange(3 * k, 3 * k + 3) for k in range(parts)]
    for k, part in enumerate(split.announced(wanted)):
        assert torch.equal(part, wanted[k])
        assert len(announced) == min(parts, k + 2)
    assert announced == [(39 - part).tolist() for part in wanted]


def huge(path: Path, n: int) -> StreamedSplit:
    """`n` black images of 256 x 256 that take no room on the disk."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n, 3, 256, 256)})
        file.truncate(file.tell() + n * 3 * 256 * 256)
    mapped = MappedImages(path)
    sums = torch.ones(n, 3, 2, dtype=torch.int64)
    return StreamedSplit(mapped.images, torch.arange(n) % 10, 16, mapped=mapped, sums=sums)


@contextlib.contextmanager
def at_most_more(room: int) -> Iterator[None]:
    """Inside, this process cannot get more than `room` bytes of address space beyond what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_split_far_larger_than_the_memory_allowed_trains(tmp_path: Path) -> None:
    n, room = 60_000, 400 * 2**20
    train = huge(tmp_path / "train.npy", n)
    assert train.x.numel() > 20 * room
    small = huge(tmp_path / "test.npy", 20)
    test = Split(small.x[:, :, 16:-16, 16:-16].clone(), small.y)
    dataset = Dataset("huge", train, test, 10, flip_ok=True, known_digest="0" * 16)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with at_most_more(room):
        with pytest.raises(RuntimeError, match=r"alloc|memory"):
            train.x.clone()  # the limit holds
        data = prepare(dataset, train_limit=n - 100, val_fraction=0.1)
        model = torch.nn.Linear(3 * 224 * 224, 10)
        order = torch.randperm(len(data.train), generator=stream(0, "data"))
        draws = stream(0, "augment")
        for k, indices in enumerate(data.train.announced(order.split(16)[:6])):
            x, y = data.augmented(indices, ("pad", "resized")[k % 2], draws) if k else data.batch(data.train, indices)
            assert x.shape == (16, 3, 224, 224)
            torch.nn.functional.cross_entropy(model(x.flatten(1)), y).backward()
        assert data.val is not None
        data.batch(data.val, torch.arange(16))
        data.probe(32)
    assert data.normalised(data.train) is None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) * 1024
    assert grown < room + 200 * 2**20  # and the pages of the file that were touched


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("moved", [True, False])
def test_on_an_accelerator_batches_are_the_same(
    streamed: Dataset, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not moved:
        monkeypatch.setattr("sparseflow.data.streamed.ON_DEVICE_BYTES", 0)
    ours = prepare(streamed, val_fraction=0.2, device="cuda")
    assert isinstance(ours.train, StreamedSplit) is not moved
    assert ours.device.type == "cuda"
    there, here = ours, prepare(streamed, val_fraction=0.2)
    at = torch.arange(20)
    for mine, other in (
        (there.batch(there.train, at), here.batch(here.train, at)),
        (there.augmented(at, "pad", stream(0, "a")), here.augmented(at, "pad", stream(0, "a"))),
        (there.augmented(at, "resized", stream(0, "a")), here.augmented(at, "resized", stream(0, "a"))),
    ):
        assert mine[0].device.type == mine[1].device.type == "cuda"
        torch.testing.assert_close(mine[0].cpu(), other[0], rtol=1e-4, atol=1e-4)
        assert torch.equal(mine[1].cpu(), other[1])


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for content, message in (
        (np.zeros((2, 3, 4, 4), np.float32), "expected uint8 images .*found float32"),
        (np.zeros((2, 3), np.uint8), r"found uint8 \(2, 3\)"),
        (np.zeros((0, 3, 4, 4), np.uint8), r"found uint8 \(0, 3, 4, 4\)"),
    ):
        np.save(path, content)
        with pytest.raises(BadData, match=message):
            MappedImages(path)
    path.write_bytes(b"no array at all")
    with pytest.raises(BadData, match="not an array of images"):
        MappedImages(path)
    np.save(path, np.zeros((2, 3, 4, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadData, match="cut short: 223 of 224 bytes"):
        MappedImages(path)


def test_margins_sums_and_rows_that_do_not_fit_are_refused(streamed: Dataset) -> None:
    whole = streamed.train
    assert isinstance(whole, StreamedSplit)
    with pytest.raises(BadValue, match=r"sums of .* cannot have shape"):
        replace(whole, sums=whole.sums[1:])
    with pytest.raises(BadValue, match="x has 3 examples but y has 72 labels"):
        replace(whole, rows=torch.arange(3))
    for x, margin in ((torch.zeros(2, 3, 4, 6, dtype=torch.uint8), 2), (torch.zeros(2, 5), 1)):
        with pytest.raises(BadValue, match=f"a margin of {margin} does not fit"):
            Split(x, torch.zeros(2, dtype=torch.int64), margin)


def test_pixel_sums_are_exact_at_the_largest_values() -> None:
    white = torch.full((1, 1, 300, 300), 255, dtype=torch.uint8)
    assert pixel_sums(white).tolist() == [[[90_000 * 255, 90_000 * 255**2]]]
