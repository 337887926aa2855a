"""A reader for the CIFAR pickles that can build arrays and plain containers, and nothing else.

A pickle is a program that may call any function it can name. This one is only ever handed the stand-ins below, never
NumPy's own classes: their `__setstate__` trusts its input, and a forged dtype turns bytes into object pointers.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadData

_PLAIN_DTYPE = re.compile(r"[uif][1248]|b1")


def read_pickle(stream: IO[bytes], source: str) -> dict[str, Any]:
    """The dictionary in a CIFAR pickle, keys as str; strings from Python 2 stay bytes, arrays are `numpy.ndarray`.

    Args:
        source: what to call the file in errors.

    Raises:
        BadData: if the pickle is damaged or cut short, asks for any name but NumPy's array reconstruction, holds an
            array of objects, or is not a dictionary. Nothing that it asks for is executed.
    """
    try:
        loaded = _ArraysOnly(stream, encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise BadData(f"expected a pickled dictionary, found {type(loaded).__name__}")
        return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in loaded.items()}
    except BadData as error:
        raise BadData(f"{source}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise BadData(f"{source}: damaged or cut-short pickle ({type(error).__name__}: {error})") from error


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Compared as one pair, before any import: dotted names ("numpy" + "core.x.eval") match nothing.
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise BadData(
                f"the pickle asks for {module}.{name}; only NumPy arrays of numbers are read, and nothing was run"
            ) from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise BadData(f"expected a string, found {type(value).__name__}")


class _Dtype:
    """What `numpy.dtype(code, align, copy)` becomes: a checked code, and the byte order that its state adds."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise BadData(f"the pickle holds an array of structured type {self.code!r}; only plain numbers are read")
        self.order = order

    def build(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """What `numpy.core.multiarray._reconstruct` becomes: an array whose shape, type and bytes arrive as its state."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self._value = _build_array(data, dtype, shape, "F" if fortran else "C")

    def array(self) -> npt.NDArray[Any]:
        if self._value is None:
            raise BadData("the pickle holds an array without contents")
        return self._value


def _build_array(data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise BadData("the pickle holds an array that is not made of plain numbers")
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise BadData(f"the pickle holds an array of shape {sizes}")
    return np.frombuffer(data, dtype.build()).reshape(sizes, order=order)


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _dtype(code: Any, _align: Any = False, _copy: Any = False) -> _Dtype:
    name = _text(code)
    if not _PLAIN_DTYPE.fullmatch(name):
        raise BadData(f"the pickle holds an array of type {name!r}; only plain numbers are read")
    return _Dtype(name)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """`numpy.core.numeric._frombuffer`, which pickles of protocol 5 use."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, by which Python 3 writes bytes into pickles of protocol 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise BadData("the pickle encodes text in another way than NumPy does")
    return text.encode("latin1")


class _StandIn(tuple[Callable[..., Any]]):
    """A callable that cannot be changed: a pickle may also *assign* to what it is given; a function would allow it."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self[0](*args)


def _not_callable(*_args: Any) -> Any:
    raise BadData("the pickle calls numpy.ndarray itself, which the CIFAR files never do")


_ALLOWED: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn((_not_callable,)),  # only named, as the first argument of _reconstruct
    ("numpy", "dtype"): _StandIn((_dtype,)),
    ("_codecs", "encode"): _StandIn((_encode,)),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _StandIn((_reconstruct,)) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _StandIn((_from_buffer,)) for core in ("core", "_core")},
}
