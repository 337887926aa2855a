"""Specifications from YAML, presets and `--set`, with every mistake listed at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sparseflow.core import BadSpec, UnknownName

S = TypeVar("S", bound=BaseModel)


def validate(model: type[S], content: Mapping[str, Any]) -> S:
    """An instance of `model`.

    Raises:
        BadSpec: listing every problem with its path and, for a misspelt key, the names that would have worked.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise BadSpec(_problem(model, dict(e)) for e in error.errors()) from None


def _problem(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path) or "specification"
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: no such field (known: {', '.join(known)}){guess}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if isinstance(error["input"], dict | BaseModel) else f", got {error['input']!r}"
    return f"{where}: {message}" if error["type"] == "value_error" else f"{where}: {message}{got}"


def _fields_at(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return sorted(model.model_fields)


def assign(content: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`content` with each `a.b=value` applied; values are YAML (numbers, true, null, [1, 2], words).

    Raises:
        BadSpec: listing every assignment that has no `=` or no path.
    """
    result: dict[str, Any] = deepcopy(dict(content))
    problems = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            problems.append(f"--set {assignment!r}: write it as section.field=value")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"--set {assignment!r}: {text!r} is not a YAML value")
            continue
        if isinstance(value, str):
            value = _number(value)
        place = result
        for key in keys[:-1]:
            inner = place.get(key)
            place[key] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[key]
        place[keys[-1]] = value
    if problems:
        raise BadSpec(problems)
    return result


def _number(text: str) -> Any:
    """1e-4 is a word to YAML 1.1; people who write it mean the number."""
    try:
        return float(text)
    except ValueError:
        return text


def presets() -> dict[str, str]:
    """Name -> one-line title of every shipped preset."""
    folder = files("sparseflow.study") / "presets"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".yaml")] = content["title"]
    return found


def read_preset(name: str) -> dict[str, Any]:
    """The content of a shipped preset, or of a YAML file if `name` ends in .yaml or .yml.

    Raises:
        UnknownName: for a preset that does not exist.
        BadSpec: for a file that is missing or no YAML mapping.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BadSpec([f"no file {name!r}"])
        text = path.read_text(encoding="utf-8")
    else:
        if name not in presets():
            raise UnknownName("preset", name, [*presets(), "a path ending in .yaml"])
        text = (files("sparseflow.study") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadSpec([f"{name}: not valid YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise BadSpec([f"{name}: expected a mapping of sections, got {type(content).__name__}"])
    numbers: dict[str, Any] = _with_numbers(content)
    return numbers


def _with_numbers(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _with_numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_numbers(value) for value in content]
    return _number(content) if isinstance(content, str) else content
