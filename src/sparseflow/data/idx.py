"""The idx format of MNIST and Fashion-MNIST: a big-endian header, then bytes; plain or gzip-compressed."""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
import torch

from sparseflow.core import BadData
from sparseflow.data.dataset import Split
from sparseflow.data.files import check_labels

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_IMAGES, _LABELS = 0x0803, 0x0801  # two zero bytes, type 8 (unsigned byte), number of dimensions
_KINDS = {_IMAGES: "an idx image file", _LABELS: "an idx label file"}
_PIECE = 1 << 24
_MOST_GZIP_GROWTH = 1032  # DEFLATE cannot do better: 258 bytes from 2 bits


def read_images(path: Path) -> npt.NDArray[np.uint8]:
    """Images (N, H, W) of an idx3 file.

    Raises:
        BadData: if the file is missing, damaged, cut short, too long, empty or not an image file.
    """
    return _read(path, _IMAGES)


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Labels (N,) of an idx1 file.

    Raises:
        BadData: if the file is missing, damaged, cut short, too long, empty or not a label file.
    """
    return _read(path, _LABELS)


def read_split(folder: Path, stem: str, classes: int) -> Split:
    """The images and labels that begin with `stem` ("train" or "t10k"), as a split (N, 1, H, W).

    Raises:
        BadData: if a file cannot be read, the two do not match, or a label is not in 0 .. classes - 1.
    """
    image_path = _existing(folder, f"{stem}-images-idx3-ubyte")
    label_path = _existing(folder, f"{stem}-labels-idx1-ubyte")
    images, labels = read_images(image_path), read_labels(label_path)
    if len(images) != len(labels):
        raise BadData(f"{image_path} has {len(images)} images but {label_path} has {len(labels)} labels")
    y = check_labels(str(label_path), labels, classes)
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(y))


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadData(f"{folder} has neither {name} nor {name}.gz")


def _read(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return _parse(path, cast(IO[bytes], stream), magic, path.stat().st_size * _MOST_GZIP_GROWTH)
        with path.open("rb") as stream:
            return _parse(path, stream, magic, path.stat().st_size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path}: damaged or cut-short gzip file ({error})") from error
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(path: Path, stream: IO[bytes], magic: int, most: int) -> npt.NDArray[np.uint8]:
    """Read what the header announces and one byte more; `most` is how many bytes the file can possibly hold."""
    found = int.from_bytes(_exactly(path, stream, 4, "its magic number"), "big")
    if found != magic:
        what = f"is {_KINDS[found]}" if found in _KINDS else "is not an idx file of unsigned bytes"
        raise BadData(f"{path} {what} (magic number {found}), expected {_KINDS[magic]} ({magic})")
    ndim = magic & 0xFF
    shape = struct.unpack(f">{ndim}I", _exactly(path, stream, 4 * ndim, "its dimensions"))
    size = prod(shape)
    if size == 0:
        raise BadData(f"{path} is empty: its header announces shape {shape}")
    if size > most:
        raise BadData(
            f"{path} is cut short: its header announces {size:,} bytes, the file cannot hold more than {most:,}"
        )
    data = _exactly(path, stream, size, f"data of shape {shape}")
    if stream.read(1):
        raise BadData(f"{path} goes on after the {size:,} bytes that its header announces (shape {shape})")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _exactly(path: Path, stream: IO[bytes], count: int, what: str) -> bytearray:
    # In pieces: one read of a size that a false header announces would allocate it all before finding it missing.
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(count - len(data), _PIECE))
        if not piece:
            raise BadData(f"{path} is cut short: {what} takes {count:,} bytes, found {len(data):,}")
        data += piece
    return data
