"""Missing, damaged and hostile data files: always one BadData that names the file and what is wrong with it."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import (
    cifar_10_files,
    cifar_100_files,
    idx_arrays,
    idx_bytes,
    python2_pickle,
    write_archive,
    write_idx,
    write_pickles,
)
from sparseflow.core import BadData
from sparseflow.data import load
from sparseflow.data.pickles import read_pickle

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def refused(name: str, root: Path | None = None) -> str:
    with pytest.raises(BadData) as caught:
        load(name, root)
    return str(caught.value)


# ---- folders


def test_a_missing_folder_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    message = refused("cifar-10", tmp_path)
    for part in (
        "data_batch_1",
        "test_batch",
        str(tmp_path / "cifar-10-batches-py"),
        "cifar-10-python.tar.gz",
        "--data-root",
        "SPARSEFLOW_DATA",
    ):
        assert part in message
    assert "is not a folder" in refused("mnist", tmp_path / "nowhere")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    arrays = idx_arrays()
    del arrays["t10k-labels-idx1-ubyte"]
    write_idx(tmp_path, arrays, compressed=True)
    assert "has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz" in refused("mnist", tmp_path)
    files = cifar_10_files()
    del files["test_batch"]
    write_pickles(tmp_path / "cifar-10-batches-py", files)
    assert "cifar-10-batches-py has no test_batch" in refused("cifar-10", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_arrays(), compressed=False)
    (tmp_path / IMAGES).chmod(0)
    assert f"{tmp_path / IMAGES}: cannot be read (Permission denied)" in refused("mnist", tmp_path)


# ---- idx


def idx_refused(tmp_path: Path, name: str, content: bytes, *, compressed: bool = False) -> str:
    """The message when one file of a good folder has other content; it must name that file."""
    write_idx(tmp_path, idx_arrays(), compressed=compressed)
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(content)
    message = refused("mnist", tmp_path)
    assert str(path) in message
    return message


@pytest.mark.parametrize("kept", [0, 3, 9, 16, 500, 40 * 30 + 15])
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_cut_short(tmp_path: Path, kept: int, compressed: bool) -> None:
    content = idx_bytes(idx_arrays()[IMAGES])[:kept]
    content = gzip.compress(content) if compressed else content
    assert "is cut short" in idx_refused(tmp_path, IMAGES, content, compressed=compressed)


def test_idx_with_bytes_left_over(tmp_path: Path) -> None:
    content = idx_bytes(idx_arrays()[IMAGES]) + b"\0"
    assert "goes on after the 1,200 bytes" in idx_refused(tmp_path, IMAGES, content)


@pytest.mark.parametrize("size", [0, 5, 60, 300])
def test_gzip_cut_short(tmp_path: Path, size: int) -> None:
    whole = gzip.compress(idx_bytes(idx_arrays()[IMAGES]), mtime=0)
    message = idx_refused(tmp_path, IMAGES, whole[:size], compressed=True)
    assert "cut-short gzip" in message or "is cut short" in message


def test_gzip_damaged(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(idx_bytes(idx_arrays()[IMAGES]), mtime=0))
    for position in (0, 12, len(whole) // 2, len(whole) - 6):
        damaged = whole.copy()
        damaged[position] ^= 0xFF
        idx_refused(tmp_path, IMAGES, bytes(damaged), compressed=True)
    assert "damaged" in idx_refused(tmp_path, IMAGES, idx_bytes(idx_arrays()[IMAGES]), compressed=True)


def test_wrong_magic_numbers(tmp_path: Path) -> None:
    arrays = idx_arrays()
    assert "is an idx label file (magic number 2049), expected an idx image file (2051)" in idx_refused(
        tmp_path, IMAGES, idx_bytes(arrays[LABELS])
    )
    assert "is an idx image file (magic number 2051), expected an idx label file" in idx_refused(
        tmp_path, LABELS, idx_bytes(arrays[IMAGES])
    )
    assert "is not an idx file" in idx_refused(tmp_path, IMAGES, idx_bytes(arrays[IMAGES], magic=0x0D03))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_announces_terabytes_allocates_nothing(tmp_path: Path, compressed: bool) -> None:
    content = idx_bytes(idx_arrays()[IMAGES], shape=(2**32 - 1, 2**32 - 1, 2**32 - 1))
    content = gzip.compress(content) if compressed else content
    assert "cannot hold more than" in idx_refused(tmp_path, IMAGES, content, compressed=compressed)


def test_a_gzip_bomb_behind_an_honest_header_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(idx_bytes(idx_arrays()[IMAGES]) + bytes(1 << 26))
    asked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    assert "goes on after" in idx_refused(tmp_path, IMAGES, bomb, compressed=True)
    assert sum(asked[:4]) == 4 + 12 + 1200 + 1
    assert min(asked) > 0


def test_idx_that_contradicts_itself(tmp_path: Path) -> None:
    arrays = idx_arrays()
    message = idx_refused(tmp_path, LABELS, idx_bytes(arrays[LABELS][:-1]))
    assert "has 40 images" in message
    assert "has 39 labels" in message
    labels = arrays[LABELS].copy()
    labels[7] = 10
    assert "labels must be 0 .. 9, but label 7 of 40 is 10" in idx_refused(tmp_path, LABELS, idx_bytes(labels))
    assert "is empty" in idx_refused(tmp_path, IMAGES, idx_bytes(arrays[IMAGES][:0]))
    smaller = idx_arrays(size=4)["t10k-images-idx3-ubyte"]
    write_idx(tmp_path, {**arrays, "t10k-images-idx3-ubyte": smaller}, compressed=False)
    assert "training images are 5 x 6, test images 4 x 5" in refused("mnist", tmp_path)


# ---- CIFAR


def cifar_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], name: str = "data_batch_2") -> str:
    files = cifar_10_files()
    change(files[name])
    write_pickles(tmp_path, files)
    message = refused("cifar-10", tmp_path)
    assert str(tmp_path / name) in message
    return message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((20, 3071), np.uint8)}, "'data' must be uint8 (N, 3072), found uint8 (20, 3071)"),
        ({"data": np.zeros((20, 3, 32, 32), np.uint8)}, "found uint8 (20, 3, 32, 32)"),
        ({"data": np.zeros((20, 3072))}, "found float64 (20, 3072)"),
        ({"data": [[0] * 3072] * 20}, "found list"),
        ({"data": np.zeros((19, 3072), np.uint8)}, "19 images but 20 labels under 'labels'"),
        ({"data": np.zeros((20, 3072), object)}, "only plain numbers"),
        ({"data": np.zeros((20, 3072), "S4")}, "only plain numbers"),
        ({"data": np.zeros(20, [("a", "u1", 3072)])}, "only plain numbers"),
        ({"labels": [0.0] * 20}, "'labels' must be a list of integers"),
        ({"labels": [True] * 20}, "'labels' must be a list of integers"),
        ({"labels": 7}, "'labels' must be a list of integers"),
        ({"labels": [1 << 80] * 20}, "'labels' must be a list of integers"),
        ({"labels": [0] * 19 + [10]}, "labels must be 0 .. 9, but label 19 of 20 is 10"),
        ({"labels": [-1] * 20}, "label 0 of 20 is -1"),
        ({"labels": np.full(20, 12)}, "label 0 of 20 is 12"),
    ],
)
def test_cifar_batches_with_other_contents(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in cifar_refused(tmp_path, lambda batch: batch.update(change))


def test_cifar_batches_without_contents(tmp_path: Path) -> None:
    message = cifar_refused(tmp_path, lambda batch: batch.pop("labels"))
    assert "no 'labels'; it has data, filenames" in message
    assert "no 'data' and no 'labels'; it has filenames" in cifar_refused(
        tmp_path, lambda batch: (batch.pop("labels"), batch.pop("data"))
    )
    cifar_refused(tmp_path, lambda batch: batch.update(data=np.zeros((0, 3072), np.uint8), labels=[]))


def test_cifar_10_files_in_place_of_cifar_100(tmp_path: Path) -> None:
    files = cifar_100_files()
    files["train"]["labels"] = files["train"].pop("fine_labels")
    write_pickles(tmp_path, files)
    assert "no 'fine_labels'; it has coarse_labels, data, filenames, labels" in refused("cifar-100", tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"] * 9, "9 class names"), ("abc", "expected a list of class names"), ([1] * 10, "a list")],
)
def test_cifar_meta_with_other_contents(tmp_path: Path, names: Any, message: str) -> None:
    assert message in cifar_refused(tmp_path, lambda meta: meta.update(label_names=names), "batches.meta")


def test_cifar_pickles_damaged_or_cut_short(tmp_path: Path) -> None:
    files = cifar_10_files(batches=1)
    write_pickles(tmp_path, files)
    path = tmp_path / "data_batch_1"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert f"{path}: damaged or cut-short pickle" in refused("cifar-10", tmp_path)
    for position in rng.integers(0, 400, 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(BadData):  # no other error; a changed file name within the batch is as good too
            load("cifar-10", tmp_path)


# ---- pickles that ask for more than arrays


class Asks:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (eval, "eval"),
        (exec, "exec"),
        (getattr, "getattr"),
        (__import__, "__import__"),
        (subprocess.Popen, "Popen"),
        (np.load, "load"),
        (np.array, "array"),
        (pickle.loads, "loads"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pickle_that_asks_for_anything_else_runs_nothing(
    tmp_path: Path, function: Callable[..., Any], name: str, protocol: int
) -> None:
    mark = tmp_path / "executed"
    write_pickles(tmp_path, cifar_10_files(batches=1))
    hostile = {"data": Asks(function, f"touch {mark}"), "labels": []}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(hostile, protocol=protocol))
    message = refused("cifar-10", tmp_path)
    assert str(tmp_path / "data_batch_1") in message
    assert f"{name};" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy", "ndarray.__reduce__"),
        ("numpy.core", "multiarray._reconstruct"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.core.multiarray", "scalar"),
        ("_codecs", "decode"),
        ("numpy", "dtype.__class__"),
        ("", "numpy"),
    ],
)
def test_names_near_the_allowed_ones_are_refused(module: str, name: str) -> None:
    program = (
        b"\x80\x04}\x8c\x01a"
        + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        + b"\x93s."
    )
    with pytest.raises(BadData, match=f"file: the pickle asks for {module}.{name};"):
        read_pickle(io.BytesIO(program), "file")


DTYPE = b"cnumpy\ndtype\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(DTYPE + b"(U\x01OK\x00K\x01tR", id="object dtype"),
        pytest.param(DTYPE + b"(U\x02O8K\x00K\x01tR", id="object dtype of eight bytes"),
        pytest.param(DTYPE + b"(U\x04V100K\x00K\x01tR", id="void dtype"),
        pytest.param(DTYPE + b"(U\x02u1K\x00K\x01tR(K\x03U\x01|NU\x01a}J\xff\xff\xff\xffNK\x00tb", id="dtype fields"),
        pytest.param(DTYPE + b"(U\x02u1K\x00K\x01tR(K\x03U\x01OU\x01|tb", id="dtype order"),
        pytest.param(DTYPE + b"}U\x01xK\x01sb", id="assign to a stand-in"),
        pytest.param(DTYPE + b"(N}U\x0c__defaults__)stb", id="assign to a slot of a stand-in"),
        pytest.param(DTYPE + b"(N}U\x09__class__cnumpy\nndarray\nstb", id="change the class of a stand-in"),
        pytest.param(b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR", id="call ndarray"),
        pytest.param(b"cnumpy\nndarray\n)\x81", id="new ndarray"),
        pytest.param(ARRAY, id="array without contents"),
        pytest.param(ARRAY + b"}b", id="array with a dictionary as contents"),
        pytest.param(ARRAY + b"(K\x01(K\x01tU\x02u1I00\nU\x01xtb", id="array with a string as dtype"),
        pytest.param(ARRAY + b"(K\x01(K\x09t" + DTYPE + b"(U\x02u1K\x00K\x01tRI00\nU\x01xtb", id="too few bytes"),
        pytest.param(
            ARRAY + b"(K\x01(J\xff\xff\xff\xfft" + DTYPE + b"(U\x02u1K\x00K\x01tRI00\nU\x01xtb", id="negative shape"
        ),
        pytest.param(ARRAY + b"(K\x01(K\x01t" + DTYPE + b"(U\x02u1K\x00K\x01tRI00\n]K\x01atb", id="list as bytes"),
        pytest.param(b"c_codecs\nencode\n(X\x01\x00\x00\x00aU\x05rot13tR", id="another codec"),
        pytest.param(b"U\x01xQ", id="persistent id"),
        pytest.param(b"\x82\x01", id="extension code"),
    ],
)
def test_tricks_with_the_allowed_names_are_refused(value: bytes) -> None:
    with pytest.raises(BadData, match=r"^file: "):
        read_pickle(io.BytesIO(b"\x80\x02}U\x04data" + value + b"s."), "file")
    untouched = python2_pickle([3], np.arange(3072, dtype=np.uint8)[None])
    assert read_pickle(io.BytesIO(untouched), "file")["data"][0, 5] == 5


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="file: expected a pickled dictionary, found list"):
        read_pickle(io.BytesIO(pickle.dumps([1])), "file")
    with pytest.raises(BadData, match="file: expected a string, found int"):
        read_pickle(io.BytesIO(pickle.dumps({1: 2})), "file")


# ---- archives


def test_archives_that_are_damaged_or_hold_something_else(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, "cifar-10-batches-py", cifar_10_files(batches=1))
    whole = path.read_bytes()
    for size in (0, 8, 100, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert str(path) in refused("cifar-10", tmp_path)
    for position in (0, 30, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(bytes(damaged))
        assert str(path) in refused("cifar-10", tmp_path)
    with tarfile.open(path, "w:gz"):
        pass
    assert f"{path} has none of data_batch_1" in refused("cifar-10", tmp_path)
    write_archive(path, "cifar-100-python", cifar_100_files())
    assert f"{path} has none of data_batch_1" in refused("cifar-10", tmp_path)
    files = cifar_10_files()
    del files["test_batch"]
    write_archive(path, "cifar-10-batches-py", files)
    assert f"{path} has no test_batch" in refused("cifar-10", tmp_path)


def test_an_archive_member_that_announces_gigabytes_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 1 << 40
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(member.tobuf() + bytes(2048)))
    assert "data_batch_1 announces 1,099,511,627,776 bytes" in refused("cifar-10", tmp_path)


# ---- npz

GOOD = {"x": np.eye(6), "y": np.arange(6) % 2}
PICTURES = np.zeros((6, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GOOD["x"]}, "no array y or y_train; it has x"),
        ({"images": GOOD["x"], "y": GOOD["y"]}, "no array x or x_train; it has images, y"),
        ({**GOOD, "x_train": GOOD["x"]}, "both x and x_train"),
        ({**GOOD, "x_test": GOOD["x"]}, "x_test without y_test"),
        ({**GOOD, "y_test": GOOD["y"]}, "y_test without x_test"),
        ({**GOOD, "x": np.where(np.eye(6) == 1, np.nan, 0)}, "x[0, 0] is nan"),
        ({**GOOD, "x": np.diag([0, 0, -np.inf, 0, 0, 0])}, "x[2, 2] is -inf"),
        ({**GOOD, "x": np.full((6, 2), 1e300)}, "x[0, 0] is 1e+300, which is not a finite float32 number"),
        ({**GOOD, "x": np.array([[None] * 2] * 6)}, "Object arrays cannot be loaded"),
        ({**GOOD, "y": np.array([None] * 6)}, "Object arrays cannot be loaded"),
        ({**GOOD, "x": np.zeros((6, 2), complex)}, "found complex128 (6, 2)"),
        ({**GOOD, "x": np.zeros(6)}, "found float64 (6,)"),
        ({**GOOD, "x": np.float64(1)}, "found float64 ()"),
        ({**GOOD, "x": np.zeros((6, 4, 4))}, "x must be uint8 images"),
        ({**GOOD, "x": np.zeros((6, 1, 4, 4, 4), np.uint8)}, "found uint8 (6, 1, 4, 4, 4)"),
        ({**GOOD, "x": np.zeros((0, 4, 4), np.uint8)}, "x is empty, shape (0, 4, 4)"),
        ({**GOOD, "y": np.zeros(0, int)}, "y is empty"),
        ({**GOOD, "y": np.arange(6) / 2}, "y must be integer labels (N,), found float64 (6,)"),
        ({**GOOD, "y": np.array(list("ababab"))}, "y must be integer labels (N,), found <U1 (6,)"),
        ({**GOOD, "y": np.zeros((6, 1), int)}, "found int64 (6, 1)"),
        ({**GOOD, "y": np.arange(5)}, "x has 6 examples but y has 5 labels"),
        ({**GOOD, "y": np.arange(6) - 1}, "labels must count from 0, found -1 .. 4"),
        ({**GOOD, "y": np.full(6, 2**64 - 1, np.uint64)}, "labels must count from 0"),
        ({**GOOD, "y": np.arange(6) + 1}, "go up to 6, but no example has label 0"),
        ({**GOOD, "y": np.array([0, 1, 2, 1, 0, 10**9])}, "go up to 1000000000, but no example has label 3"),
        (
            {**GOOD, "x_test": np.eye(6), "y_test": np.full(6, 2)},
            "y_test: labels must be 0 .. 1, but label 0 of 6 is 2",
        ),
        ({**GOOD, "x_test": np.eye(5), "y_test": np.zeros(5, int)}, "x_test have shape (5,), those of x (6,)"),
        ({**GOOD, "x_test": np.eye(6), "y_test": np.zeros(5, int)}, "x_test has 6 examples but y_test has 5 labels"),
        ({**GOOD, "x_test": PICTURES, "y_test": np.zeros(6, int)}, "x_test have shape (1, 4, 4), those of x (6,)"),
        ({"x": np.ones((1, 2)), "y": np.zeros(1, int)}, "one example cannot be split"),
    ],
)
def test_npz_with_other_contents(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "own.npz"
    with np.errstate(invalid="ignore"):
        np.savez(path, **arrays)
    found = refused(str(path))
    assert str(path) in found
    assert message in found


def test_npz_that_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    assert f"{path}: no such file" in refused(str(path))
    np.savez(path, **GOOD)
    whole = path.read_bytes()
    for content in (b"", b"PK", b"not a zip file", whole[: len(whole) // 2], whole[:-30], pickle.dumps({"x": 1})):
        path.write_bytes(content)
        assert str(path) in refused(str(path))
    damaged = bytearray(whole)
    damaged[whole.index(b"\x93NUMPY") + 130] ^= 0xFF
    path.write_bytes(bytes(damaged))
    assert "Bad CRC-32" in refused(str(path))
    with path.open("wb") as stream:
        np.save(stream, np.eye(3))
    assert "a single array, expected an .npz" in refused(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"no array")
        archive.writestr("y", b"no array")
    assert "x is not a NumPy array" in refused(str(path))


def test_npz_whose_header_announces_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 64), }\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64)
    assert f"{path}: damaged or unreadable .npz" in refused(str(path)) or "not an .npz" in refused(str(path))
