"""One image file to one uint8 array, by Pillow; and files to arrays in bulk, by threads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from sparseflow.core import cores

Watch = Callable[[str, int, int], None]
"""Told what is being done, how many images of it are done, and of how many."""

_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes of 8 bits a channel; deeper ones would be cut off, not scaled."""


class Damaged(Exception):
    """An image file that cannot be decoded; says why."""


class Frame(NamedTuple):
    """How the images of a split come out.

    Attributes:
        height, width: pixels.
        part: the side of the centred square that is taken, as a part of the image's shorter side, and resized to the
            frame; None: images have the frame's size already.
    """

    height: int
    width: int
    part: float | None = None


def decode(path: Path, frame: Frame) -> npt.NDArray[np.uint8]:
    """The first picture in a file as (3, height, width), in RGB: grey ones repeated, transparency dropped.

    Raises:
        Damaged: if the file is not an image that can be decoded whole, or not of the frame's size where it must be.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(_framed(_rgb(image), frame))
    except Damaged:
        raise
    except Exception as error:  # a damaged file can fail in many ways
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode not in _EIGHT_BITS:
        raise Damaged(f"its pixels are of mode {image.mode}; only 8 bits a channel are read")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _framed(image: Image.Image, frame: Frame) -> Image.Image:
    width, height = image.size
    if frame.part is None:
        if (width, height) != (frame.width, frame.height):
            raise Damaged(f"{width} x {height} pixels where the others have {frame.width} x {frame.height}")
        return image
    side = frame.part * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((frame.width, frame.height), Image.Resampling.BILINEAR, box=box)


def size_of(path: Path) -> tuple[int, int] | None:
    """(width, height) from a file's header; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # `decode` says why
        return None


@contextmanager
def decoders() -> Iterator[Callable[[Sequence[Path], Frame], list[npt.NDArray[np.uint8] | Damaged]]]:
    """A function that decodes many files by a thread per core (Pillow decodes without the interpreter's lock).

    Inside, warnings are silent: Pillow's speak of details (odd metadata) that do not touch the pixels.
    """

    def one(path: Path, frame: Frame) -> npt.NDArray[np.uint8] | Damaged:
        try:
            return decode(path, frame)
        except Damaged as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(cores(), "decode") as pool:
        warnings.simplefilter("ignore")
        yield lambda paths, frame: list(pool.map(one, paths, [frame] * len(paths)))
