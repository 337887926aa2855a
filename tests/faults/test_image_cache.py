"""The cache of decoded images: reused, renewed, killed at any moment, shared by processes, damaged, with no room."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_files import write_image, write_tree
from sparseflow.core import BadData
from sparseflow.data import image_cache, load
from sparseflow.data.rows import RowFile

Told = list[tuple[str, int, int]]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 images of 12 x 10 pixels, 24 of them to train on; decoded in blocks of three."""
    monkeypatch.delenv("SPARSEFLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(image_cache, "BLOCK_BYTES", 3 * 3 * 12 * 10)
    write_tree(tmp_path / "photos", {"a": 15, "b": 15})
    return tmp_path / "photos"


def told_by_loading(folder: Path, **options: int) -> tuple[str, Told]:
    told: Told = []
    data = load(str(folder), watch=lambda *what: told.append(what), **options)
    return data.digest, told


def decodes(told: Told) -> bool:
    return any(what.startswith("decoding") for what, _, _ in told)


def test_decoded_once_beside_the_data_and_the_place_is_told(photos: Path) -> None:
    digest, told = told_by_loading(photos)
    assert [done for what, done, of in told if what.startswith("decoding")] == list(range(0, 31, 3))
    (place,) = (p for p in (photos.parent / ".sparseflow").iterdir() if p.is_dir())
    assert any(str(place) in what for what, _, _ in told)
    assert {p.name for p in place.iterdir()} == {
        "manifest.json", "train.npy", "test.npy", "train.sums.npy", "test.sums.npy"
    }  # fmt: skip
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["digest"] == digest
    assert manifest["classes"] == {"a": "a", "b": "b"}
    again = told_by_loading(photos)
    assert again == (digest, [(f"decoded images in {place}", 30, 30)])


def change_content(folder: Path) -> None:
    write_image(folder / "a" / "a_3.png", 12345)


def add(folder: Path) -> None:
    write_image(folder / "b" / "new.png", 777)


def remove(folder: Path) -> None:
    (folder / "b" / "b_1.png").unlink()


def rename_class(folder: Path) -> None:
    (folder / "b").rename(folder / "c")


@pytest.mark.parametrize("change", [change_content, add, remove, rename_class])
def test_a_changed_folder_is_decoded_again_and_the_old_images_go(photos: Path, change: Callable[[Path], None]) -> None:
    digest, _ = told_by_loading(photos)
    change(photos)
    other, told = told_by_loading(photos)
    assert decodes(told)
    assert (other != digest) or change is rename_class
    assert len([p for p in (photos.parent / ".sparseflow").iterdir() if p.is_dir()]) == 1
    assert not decodes(told_by_loading(photos)[1])


def test_sizes_have_caches_of_their_own(photos: Path) -> None:
    for size in (8, 28):
        assert decodes(told_by_loading(photos, image_size=size)[1])
    for size in (8, 28):
        assert not decodes(told_by_loading(photos, image_size=size)[1])


def test_where_it_goes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = photos.parent / ".sparseflow"
    blocked.write_text("a file where the folder should be")
    assert decodes(told_by_loading(photos)[1])
    assert list((photos.parent / "home" / "sparseflow" / "images").glob("photos-*/train.npy"))
    monkeypatch.setenv("SPARSEFLOW_CACHE", str(photos.parent / "scratch"))
    assert decodes(told_by_loading(photos)[1])
    assert list((photos.parent / "scratch" / "images").glob("photos-*/train.npy"))
    monkeypatch.delenv("SPARSEFLOW_CACHE")
    shutil.rmtree(photos.parent / "home")
    (photos.parent / "home").write_text("")
    with pytest.raises(BadData, match=r"written neither to .*\.sparseflow nor to .*; set SPARSEFLOW_CACHE"):
        load(str(photos))


# Children are forks: they share this process's loaded libraries, so a test takes milliseconds.


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("moment", range(14))
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(photos: Path, moment: int) -> None:
    whole, _ = told_by_loading(photos)
    (place,) = (p for p in (photos.parent / ".sparseflow").iterdir() if p.is_dir())
    expected = {p.name: p.read_bytes() for p in place.iterdir()}
    shutil.rmtree(place)

    def die() -> None:
        told: Told = []

        def watch(*what: object) -> None:
            if len(told) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            told.append(what)  # type: ignore[arg-type]

        load(str(photos), watch=watch)

    assert ended(child(die)) == -signal.SIGKILL
    digest, told = told_by_loading(photos)
    assert digest == whole
    assert {p.name: p.read_bytes() for p in place.iterdir()} == expected
    assert not list(place.parent.glob("*.part"))
    decoding = [done for what, done, _ in told if what.startswith("decoding")]
    # It is told of the sizes, of decoding 0, 3 ... 30 images, of the digest, and of the place when all is done.
    assert decoding[:1] == ([] if moment == 13 else [min(30, 3 * max(0, moment - 1))])


def test_killed_in_the_middle_of_a_write_leaves_no_torn_block(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = told_by_loading(photos)
    (place,) = (p for p in (photos.parent / ".sparseflow").iterdir() if p.is_dir())
    shutil.rmtree(place)
    append = RowFile.append
    calls: list[int] = []

    def torn(self: RowFile, rows: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == 5:
            append(self, rows[:2])
            append(self, 255 - rows)
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, rows)

    def die() -> None:
        monkeypatch.setattr(RowFile, "append", torn)
        load(str(photos))

    assert ended(child(die)) == -signal.SIGKILL
    digest, told = told_by_loading(photos)
    assert digest == whole == image_cache.digest_of(*(getattr(load(str(photos)), name) for name in ("train", "test")))
    assert next(done for what, done, _ in told if what.startswith("decoding")) == 6


def test_a_folder_that_changed_after_a_kill_starts_afresh(photos: Path) -> None:
    def die() -> None:
        load(str(photos), watch=lambda what, done, of: os._exit(3) if done == 9 else None)

    assert ended(child(die)) == 3
    change_content(photos)
    digest, told = told_by_loading(photos)
    assert next(done for what, done, _ in told if what.startswith("decoding")) == 0
    shutil.rmtree(photos.parent / ".sparseflow")
    assert told_by_loading(photos)[0] == digest


def test_two_processes_at_once_decode_once(photos: Path) -> None:
    """The first waits in the middle of decoding until the second has met its lock."""
    begun, met = os.pipe(), os.pipe()
    results = photos.parent / "results"
    results.mkdir()

    def first() -> None:
        told: Told = []

        def watch(what: str, done: int, of: int) -> None:
            told.append((what, done, of))
            if what.startswith("decoding") and done == 6:
                os.write(begun[1], b"x")
                os.read(met[0], 1)

        (results / "first").write_text(f"{load(str(photos), watch=watch).digest} {decodes(told)}")

    def second() -> None:
        os.read(begun[0], 1)
        told: Told = []

        def watch(what: str, done: int, of: int) -> None:
            told.append((what, done, of))
            if what.startswith("another process"):
                os.write(met[1], b"x")

        (results / "second").write_text(f"{load(str(photos), watch=watch).digest} {decodes(told)}")

    children = [child(first), child(second)]
    assert [ended(pid) for pid in children] == [0, 0]
    digest = load(str(photos)).digest
    assert (results / "first").read_text() == f"{digest} True"
    assert (results / "second").read_text() == f"{digest} False"


def test_damaged_images_are_named_together(photos: Path) -> None:
    whole = (photos / "a" / "a_1.png").read_bytes()
    (photos / "a" / "a_1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "b" / "b_5.png").write_bytes(b"not an image")
    (photos / "b" / "b_6.png").write_bytes(b"")
    with pytest.raises(BadData, match=r"\.png cannot be decoded \(.*\); and so are 2 more: .*; replace or remove"):
        load(str(photos))
    assert not list((photos.parent / ".sparseflow").glob("photos*/")), "no half cache"
    for name in ("b_5", "b_6"):
        (photos / "b" / f"{name}.png").unlink()
    with pytest.raises(BadData, match=r"a_1\.png cannot be decoded \([^;]*\); replace or remove") as caught:
        load(str(photos))
    assert "more" not in str(caught.value)
    (photos / "a" / "a_1.png").write_bytes(whole)
    assert len(load(str(photos)).train) == 28 * 4 // 5


def test_nothing_but_damaged_images(photos: Path) -> None:
    for file in photos.rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(BadData, match=r"none of the 30 image files in .* can be decoded"):
        load(str(photos))


def test_a_damaged_cache_is_named(photos: Path) -> None:
    load(str(photos))
    (place,) = (p for p in (photos.parent / ".sparseflow").iterdir() if p.is_dir())
    file = place / "train.npy"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(BadData, match=r"decoded images in .* are damaged \(.*cut short.*\); delete that folder"):
        load(str(photos))
    (place / "manifest.json").write_text("{")
    with pytest.raises(BadData, match="delete that folder"):
        load(str(photos))
    shutil.rmtree(place)
    load(str(photos))


def test_a_full_disk_is_said_before_and_while_decoding(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photos)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(BadData, match=r"take 0\.0 GB, but .* has 0\.0 GB left; make room, or set SPARSEFLOW_CACHE"):
            load(str(photos))

    def full(self: RowFile, rows: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "append", full)
        with pytest.raises(BadData, match=r"cannot be written .No space left"):
            load(str(photos))
    assert len(load(str(photos)).train) == 24
