"""Networks of the user's own, named by where their code is: `package.module:Net`, or `./file.py:Net`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparseflow.core import BadValue, SparseflowError, global_stream, mode

FORM = "package.module:Net, or a file as ./nets.py:Net"

OF_THE_DATA = ("input_shape", "classes")
"""Parameters of a factory that get what the data say; every other one is an option."""


def is_imported(name: str) -> bool:
    """Whether a model's name is a place in somebody's code, as seen from the name alone."""
    return ":" in name


def check_place(name: str) -> str:
    """Return `name` if it has the form of a place. Looks at no file and imports nothing.

    Raises:
        BadValue: otherwise.
    """
    _split(name)
    return name


def make_imported(
    name: str,
    options: Mapping[str, Any],
    *,
    seed: int,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
) -> nn.Module:
    """The network that the factory at `name` makes, on the CPU; what it draws follows from the seed.

    Parameters called `input_shape` and `classes` get those given here, all others the options, by name.

    Raises:
        BadValue: if there is no such factory, it takes other options, fails, or makes something else than a network.
    """
    with _code_of(name) as module:
        make = _factory(name, module)
        args, named = _arguments(name, make, options, dict(zip(OF_THE_DATA, (input_shape, classes), strict=True)))
        with global_stream(seed, "init"):
            try:
                model = make(*args, **named)
            except SparseflowError as error:
                raise BadValue(f"{name}: {error}") from error
            except Exception as error:
                raise BadValue(f"{name} cannot be made: {_told(error)}") from error
    if not isinstance(model, nn.Module):
        raise BadValue(f"{name}() must return a torch.nn.Module, got {type(model).__name__}")
    if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        if input_shape is None:
            raise BadValue(f"{name} has lazy layers, which take their shapes from the data: say what the inputs are")
        with global_stream(seed, "init", "lazy"):
            _answer(name, model, input_shape)
    return model


def check_answer(name: str, model: nn.Module, input_shape: tuple[int, ...], classes: int) -> None:
    """Raise unless two inputs of zeros, in evaluation mode, give a number for each class.

    Raises:
        BadValue: naming the shape that came and the one expected.
    """
    with global_stream(0, "probe"):
        answer = _answer(name, model, input_shape)
    if not isinstance(answer, Tensor):
        raise BadValue(f"{name} must return a tensor of logits (batch, classes), got {type(answer).__name__}")
    if tuple(answer.shape) != (2, classes):
        raise BadValue(
            f"{name}: wrong output shape for 2 inputs of shape {input_shape}: got {tuple(answer.shape)}, expected "
            f"{(2, classes)}, a logit for each class"
        )
    if not answer.is_floating_point():
        raise BadValue(f"{name} must return logits of a floating point type, got {answer.dtype}")


def code_digest(name: str) -> str:
    """8 hex digits of the file that the factory is named in, empty where there is none; not of what it imports."""
    with _code_of(name) as module:
        file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8] if file and Path(file).is_file() else ""


def _split(name: str) -> tuple[str, str]:
    """(module or file, attribute)."""
    where, _, attribute = name.rpartition(":")
    sound = where.endswith(".py") or all(part.isidentifier() for part in where.split("."))
    if not sound or not attribute.isidentifier():
        raise BadValue(f"{name!r} names no network; write {FORM}")
    return where, attribute


@contextmanager
def _code_of(name: str) -> Iterator[ModuleType]:
    """The module of a place; inside, the current folder (the file's own for a file) is searched first by imports."""
    where, _ = _split(name)
    is_file = where.endswith(".py")
    folder = str(Path(where).expanduser().resolve().parent) if is_file else os.getcwd()
    sys.path.insert(0, folder)  # as python does for a script, and python -m for a module
    try:
        yield _of_file(name, Path(where).expanduser().resolve()) if is_file else _of_module(name, where)
    finally:
        sys.path.remove(folder)


def _of_module(name: str, dotted: str) -> ModuleType:
    if dotted in sys.modules:
        return sys.modules[dotted]
    importlib.invalidate_caches()  # a file may be younger than what Python knows of its folder
    with _importing(name, dotted), global_stream(0, "import", dotted):
        return importlib.import_module(dotted)


def _of_file(name: str, path: Path) -> ModuleType:
    """Loaded once in a process, under a name that follows from the file's place."""
    if not path.is_file():
        raise BadValue(f"{name}: no file {path}; paths are relative to the current folder")
    alias = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if alias in sys.modules:
        return sys.modules[alias]
    found = importlib.util.spec_from_file_location(alias, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[alias] = module  # as import does: pickle and dataclasses look a class's module up there
    try:
        with _importing(name, path.name), global_stream(0, "import", path.stem):
            found.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


@contextmanager
def _importing(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or not (what == error.name or what.startswith(f"{error.name}.")):
            raise BadValue(f"{name}: cannot import {what!r}: {_told(error)}") from error
        searched = "the current folder, PYTHONPATH and what is installed were searched"
        raise BadValue(f"{name}: cannot import {what!r}: no module {error.name!r} ({searched})") from None
    except Exception as error:
        raise BadValue(f"{name}: cannot import {what!r}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The error in one line, with the line of the user's code that raised it."""
    text = " ".join(str(error).split())
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = last.filename not in (__file__, importlib.__file__) and not last.filename.startswith("<frozen")
    place = f" ({Path(last.filename).name}, line {last.lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"


def _factory(name: str, module: ModuleType) -> Callable[..., Any]:
    where, attribute = _split(name)
    if not hasattr(module, attribute):
        makers = {n: v for n, v in vars(module).items() if callable(v) and not n.startswith("_")}
        own = [n for n, v in makers.items() if getattr(v, "__module__", "") == module.__name__]
        known = sorted(own or makers)
        near = get_close_matches(attribute, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise BadValue(f"{name}: {where!r} has no function or class {attribute!r} (it has: {_listed(known)}){guess}")
    make = getattr(module, attribute)
    if isinstance(make, nn.Module):
        raise BadValue(f"{name} is a network, which runs would share; name the class or a function that makes one")
    if not callable(make):
        raise BadValue(f"{name} must be a class or a function that makes a network, got {type(make).__name__}")
    found: Callable[..., Any] = make
    return found


def _arguments(
    name: str, make: Callable[..., Any], options: Mapping[str, Any], data: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What the factory is called with: by position what has no name there, and by name."""
    try:
        every = list(signature(make).parameters.values())
    except (TypeError, ValueError):
        raise BadValue(f"{name}: its parameters cannot be read; name a function of your own that calls it") from None
    parameters = {p.name: p for p in every if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)}
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in every)
    known = [p for p in parameters if p not in OF_THE_DATA]
    for option in options:
        if option not in known and not takes_any:
            near = get_close_matches(option, known, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise BadValue(f"model {name!r} has no option {option!r} (it has: {_listed(known)}){guess}")
    values = {n: v for n, v in data.items() if n in parameters and v is not None} | dict(options)
    missing = [n for n, p in parameters.items() if n not in values and p.default is Parameter.empty]
    if unsaid := [n for n in missing if n in OF_THE_DATA]:
        raise BadValue(f"{name} needs {_listed(unsaid)}: give --data NAME, or --input-shape and --classes")
    if missing:
        raise BadValue(
            f"{name} needs {_listed(missing)}: give a default, or the argument itself as model.options.{missing[0]} "
            "(parameters called input_shape and classes get what the data say)"
        )
    unnamed = [p for p in parameters.values() if p.kind is Parameter.POSITIONAL_ONLY]
    return [values.pop(p.name, p.default) for p in unnamed], values


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _answer(name: str, model: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """What the network says to two inputs of zeros, in evaluation mode; its state is left as it is."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad(), mode(model, training=False):
        try:
            return model(torch.zeros((2, *input_shape), dtype=dtype))
        except Exception as error:
            raise BadValue(f"{name} does not take inputs of shape {(2, *input_shape)}: {_told(error)}") from error
