"""Images of a folder, decoded once into files that are mapped from then on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparseflow.core import CACHE_VARIABLE, BadData, user_cache
from sparseflow.data.dataset import digest_of
from sparseflow.data.decode import Damaged, Frame, Watch, decoders, size_of
from sparseflow.data.folder import Files, Listing
from sparseflow.data.rows import RowFile
from sparseflow.data.statistics import pixel_sums
from sparseflow.data.streamed import MappedImages, StreamedSplit

FORMAT = 1
BESIDE = ".sparseflow"
"""Name of the folder beside a data folder that keeps what was decoded."""

BLOCK_BYTES = 64 * 2**20
"""Of images that are decoded and written together: what a kill costs at most."""

_MANIFEST, _PROGRESS = "manifest.json", "progress.json"
_SPLITS = ("train", "test")


class Decoded(NamedTuple):
    """The splits of a folder of images, and their `Dataset.digest`."""

    train: StreamedSplit
    test: StreamedSplit
    digest: str


def room_for(image_size: int) -> int:
    """Pixels by which resized training images are larger on each side than `image_size`: 16 for 224, so 256 in all.

    The field's usual test image is the centre of 224 of a shorter side of 256; training images are kept at that scale.
    """
    return round(image_size / 14)


def decoded(listing: Listing, image_size: int | None, watch: Watch) -> Decoded:
    """The images of a listing, from the cache, where they are put first if need be.

    The cache lies in SPARSEFLOW_CACHE where that is set, else in `.sparseflow/` beside the data folder, else (where
    that cannot be written) in the user's cache folder. It is written aside, image by image in blocks, and renamed when
    it is whole: a kill costs a block, and of several processes that ask at once one decodes and the others wait.

    Args:
        image_size: side of the examples; None takes images as they are, which must be of one size.
        watch: told of the progress, and of the place.

    Raises:
        BadData: if images are damaged, differ in size where no size is given, or nothing can be written anywhere.
    """
    source = str(listing.folder.resolve())
    name = f"{listing.folder.resolve().name}-{_short([source, image_size])}"
    key = {"format": FORMAT, "source": source, "image_size": image_size, "listing": listing.digest}
    homes = _homes(listing.folder.resolve())
    for home in homes:
        found = _open(home / name, key, listing, watch)
        if found is not None:
            return found
    home = _writable(homes)
    with _locked(home / f"{name}.lock", lambda: watch(f"another process decodes images into {home / name}", 0, 0)):
        found = _open(home / name, key, listing, watch)
        if found is None:
            shutil.rmtree(home / name, ignore_errors=True)  # of other images, or another format
            _build(home / name, key, listing, image_size, watch)
            found = _open(home / name, key, listing, watch)
            assert found is not None  # it was built a moment ago, and the lock is held
        return found


def _short(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _homes(folder: Path) -> list[Path]:
    if os.environ.get(CACHE_VARIABLE):
        return [user_cache() / "images"]
    return [folder.parent / BESIDE, user_cache() / "images"]


def _writable(homes: list[Path]) -> Path:
    for home in homes:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(home, os.W_OK | os.X_OK):
            return home
    raise BadData(
        f"decoded images can be written neither to {' nor to '.join(map(str, homes))}; "
        f"set {CACHE_VARIABLE} to a folder that can be written"
    )


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock while inside; the system lets go of it when the process dies, however it dies."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(place: Path, key: dict[str, Any], listing: Listing, watch: Watch) -> Decoded | None:
    """The cache at `place` if it is there, and of this very listing."""
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        if manifest["key"] != key:
            return None
        train, test = (_split(place, name, listing, manifest["margin"][name]) for name in _SPLITS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (BadData, ValueError, KeyError, TypeError, OSError) as error:
        raise BadData(f"the decoded images in {place} are damaged ({error}); delete that folder") from error
    watch(f"decoded images in {place}", len(train) + len(test), len(train) + len(test))
    return Decoded(train, test, manifest["digest"])


def _split(place: Path, name: str, listing: Listing, margin: int) -> StreamedSplit:
    mapped = MappedImages(place / f"{name}.npy")
    sums = torch.from_numpy(np.load(place / f"{name}.sums.npy"))
    return StreamedSplit(mapped.images, _files(listing, name).y, margin, mapped=mapped, sums=sums)


def _files(listing: Listing, split: str) -> Files:
    return listing.train if split == "train" else listing.test


def _build(place: Path, key: dict[str, Any], listing: Listing, image_size: int | None, watch: Watch) -> None:
    part = place.with_name(place.name + ".part")
    frames = _frames(listing, image_size, watch)
    plan = {"key": key, "frames": {name: list(frame) for name, frame in frames.items()}}
    progress = _progress(part, plan)
    _check_space(part, listing, frames)
    damaged: list[list[str]] = progress["damaged"]
    total = sum(len(_files(listing, name)) for name in _SPLITS)
    what = f"decoding {total:,} images of {listing.folder} into {place}"
    watch(what, sum(progress["done"].values()), total)
    try:
        for name in _SPLITS:
            for _ in _decode_split(part, name, listing, frames[name], progress):
                watch(what, sum(progress["done"].values()), total)
    except OSError as error:
        raise BadData(f"{part}: cannot be written ({error.strerror or error})") from error
    if damaged:
        shutil.rmtree(part)
        raise BadData(_complaint(listing, damaged))
    _finish(part, place, key, listing, frames, watch)


def _progress(part: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """How far an earlier process came with the same plan; else a fresh start in an empty folder."""
    try:
        progress: dict[str, Any] = json.loads((part / _PROGRESS).read_text())
        if progress["plan"] == plan:
            return progress
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing there, or not even begun
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    return {"plan": plan, "done": dict.fromkeys(_SPLITS, 0), "damaged": []}


def _frames(listing: Listing, image_size: int | None, watch: Watch) -> dict[str, Frame]:
    """How the images of each split come out; reads the headers of all images, up to one that decides."""
    total = len(listing.train) + len(listing.test)
    first: tuple[Path, tuple[int, int]] | None = None
    for k, found in enumerate(chain(listing.train.found, listing.test.found)):
        if k % 1000 == 0:
            watch(f"looking at the sizes of {total:,} images", k, total)
        path = listing.folder / found.path
        size = size_of(path)
        if size is None:
            continue
        if image_size is not None and size != (image_size, image_size):
            side = image_size + 2 * room_for(image_size)
            return {"train": Frame(side, side, 1.0), "test": Frame(image_size, image_size, image_size / side)}
        first = first or (path, size)
        if size != first[1]:
            sizes = " and ".join(f"{at} has {w} x {h} pixels" for at, (w, h) in (first, (path, size)))
            raise BadData(f"images differ in size: {sizes}; set data.image_size to resize them")
    if first is None:
        raise BadData(f"none of the {total:,} image files in {listing.folder} can be decoded")
    return dict.fromkeys(_SPLITS, Frame(height=first[1][1], width=first[1][0]))


def _check_space(part: Path, listing: Listing, frames: dict[str, Frame]) -> None:
    wanted = sum(len(_files(listing, name)) * 3 * frames[name].height * frames[name].width for name in _SPLITS)
    there = sum(file.stat().st_size for file in part.iterdir())
    free = shutil.disk_usage(part).free
    if wanted - there > free:
        raise BadData(
            f"the decoded images of {listing.folder} take {wanted / 1e9:.1f} GB, but {part.parent} has "
            f"{free / 1e9:.1f} GB left; make room, or set {CACHE_VARIABLE} to a folder elsewhere"
        )


def _decode_split(part: Path, name: str, listing: Listing, frame: Frame, progress: dict[str, Any]) -> Iterator[None]:
    """Decode what is not done yet of a split; yields after every block that is safe on the disk."""
    files, done = _files(listing, name), progress["done"]
    shape = (3, frame.height, frame.width)
    block = max(1, BLOCK_BYTES // prod(shape))
    with (
        decoders() as decode_all,
        RowFile(part / f"{name}.npy", len(files), shape, np.dtype(np.uint8), done[name]) as images,
        RowFile(part / f"{name}.sums.npy", len(files), (3, 2), np.dtype(np.int64), done[name]) as sums,
    ):
        while done[name] < len(files):
            chosen = files.found[done[name] : done[name] + block]
            pixels = np.zeros((len(chosen), *shape), np.uint8)
            results = decode_all([listing.folder / found.path for found in chosen], frame)
            for into, found, result in zip(pixels, chosen, results, strict=True):
                if isinstance(result, Damaged):
                    progress["damaged"].append([found.path, str(result)])
                else:
                    into[:] = result
            images.append(pixels)
            sums.append(pixel_sums(torch.from_numpy(pixels)).numpy())
            done[name] += len(chosen)
            _write_json(part / _PROGRESS, progress)
            yield


def _complaint(listing: Listing, damaged: list[list[str]]) -> str:
    (path, reason), *others = damaged
    named = ", ".join(other for other, _ in others[:5]) + (", ..." if len(others) > 5 else "")
    count = f"; and so {'is' if len(others) == 1 else 'are'} {len(others)} more: {named}" if others else ""
    return f"{listing.folder / path} cannot be decoded ({reason}){count}; replace or remove what is damaged"


def _finish(
    part: Path, place: Path, key: dict[str, Any], listing: Listing, frames: dict[str, Frame], watch: Watch
) -> None:
    """Write the manifest and rename: from then on the cache is there."""
    margins = {"train": (frames["train"].height - frames["test"].height) // 2, "test": 0}
    watch(f"taking the digest of {place}", 0, 0)
    train, test = (_split(part, name, listing, margins[name]) for name in _SPLITS)
    manifest = {
        "key": key,
        "digest": digest_of(train, test),
        "margin": margins,
        "shapes": {"train": list(train.x.shape), "test": list(test.x.shape)},
        "classes": dict(zip(listing.classes, listing.class_names, strict=True)),
    }
    _write_json(part / _MANIFEST, manifest)
    (part / _PROGRESS).unlink()
    part.rename(place)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_suffix(".tmp")
    with aside.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
