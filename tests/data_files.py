"""Small data files in the authors' formats, written byte by byte and not with the toolkit's own code."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def idx_bytes(array: np.ndarray, magic: int | None = None, shape: tuple[int, ...] | None = None) -> bytes:
    magic = 0x0800 + array.ndim if magic is None else magic
    shape = array.shape if shape is None else shape
    return struct.pack(f">I{len(shape)}I", magic, *shape) + array.astype(np.uint8).tobytes()


def idx_arrays(seed: int = 0, n_train: int = 40, n_test: int = 20, size: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (n_train, size, size + 1)).astype(np.uint8),
        "train-labels-idx1-ubyte": (np.arange(n_train) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (n_test, size, size + 1)).astype(np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(n_test)[::-1] % 10).astype(np.uint8),
    }


def write_idx(folder: Path, arrays: dict[str, np.ndarray], *, compressed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
        else:
            (folder / name).write_bytes(idx_bytes(array))


def cifar_batch(seed: int, n: int, classes: int, key: str = "labels") -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {
        "data": rng.integers(0, 256, (n, 3072)).astype(np.uint8),
        key: [int(label) for label in (np.arange(n) + seed) % classes],
        "filenames": [f"picture_{seed}_{i}.png" for i in range(n)],
    }


def cifar_10_files(batches: int = 5, n: int = 20) -> dict[str, dict[str, object]]:
    files = {f"data_batch_{i}": cifar_batch(i, n, 10) for i in range(1, batches + 1)}
    files["test_batch"] = cifar_batch(9, n, 10)
    files["batches.meta"] = {"label_names": [f"kind {i}" for i in range(10)], "num_vis": 3072}
    return files


def cifar_100_files(n: int = 200) -> dict[str, dict[str, object]]:
    files: dict[str, dict[str, object]] = {}
    for seed, name in enumerate(("train", "test")):
        files[name] = cifar_batch(seed, n, 100, "fine_labels")
        files[name]["coarse_labels"] = [0] * n
    files["meta"] = {"fine_label_names": [f"kind {i}" for i in range(100)]}
    return files


def write_pickles(folder: Path, files: dict[str, dict[str, object]], protocol: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))


def python2_pickle(labels: list[int], data: np.ndarray) -> bytes:
    """{'labels': labels, 'data': data} opcode by opcode as Python 2 wrote the originals: strings are raw bytes.

    An independent statement of the format; `pickle.dumps` of Python 3 takes the detour over `_codecs.encode`.
    """

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    rows, columns = data.shape
    out = b"\x80\x02}(" + string(b"labels") + b"](" + b"".join(integer(label) for label in labels) + b"e"
    out += string(b"data") + b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    out += integer(0) + b"\x85" + string(b"b") + b"\x87R"
    out += b"(" + integer(1) + integer(rows) + integer(columns) + b"\x86"
    out += b"cnumpy\ndtype\n" + string(b"u1") + integer(0) + integer(1) + b"\x87R"
    out += b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    out += b"\x89" + b"T" + struct.pack("<i", data.size) + data.tobytes() + b"tb"
    return out + b"u."


def write_archive(path: Path, folder: str, files: dict[str, dict[str, object]], *, last: str | None = None) -> None:
    """The pickles in a tar.gz below `folder/`, as the authors packed theirs; `last` names the one to put last."""
    names = sorted(files, key=lambda name: (name == last, name))
    with tarfile.open(path, "w:gz") as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name in names:
            content = pickle.dumps(files[name], protocol=2)
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_image(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> np.ndarray:
    """A picture of noise of (width, height); its pixels as they were given to the encoder, (H, W, ...)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "CMYK": (4,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels)).astype(np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


def write_tree(folder: Path, counts: dict[str, int], ending: str = "png", size: tuple[int, int] = (12, 10)) -> None:
    """`counts[class]` pictures in every class folder, no two alike."""
    for k, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write_image(folder / name / f"{name}_{i}.{ending}", 1000 * k + i + len(str(folder)), size)
