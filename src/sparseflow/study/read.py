"""Specifications from YAML, presets and `--set`, with every mistake listed at once."""

from __future__ import annotations

import difflib
import re
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
        return no_such_field(where, path[-1], _fields_at(model, path[:-1]))
    if error["type"] in _WRITE_IT_AS:
        return f"{where}: write {_WRITE_IT_AS[error['type']]}, got {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if isinstance(error["input"], dict | BaseModel) else f", got {error['input']!r}"
    return f"{where}: {message}" if error["type"] == "value_error" else f"{where}: {message}{got}"


def no_such_field(where: str, name: str, known: Iterable[str]) -> str:
    """The problem of a misspelt key, with the names that would have worked."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: no such field (known: {', '.join(names)}){guess}"


_WRITE_IT_AS = {
    "tuple_type": "a list, such as [a, b]",
    "model_type": "a mapping of fields, such as {name: value}",
    "model_attributes_type": "a mapping of fields, such as {name: value}",
    "dict_type": "a name, or a mapping of fields such as {name: value}",
}


def _fields_at(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return sorted(model.model_fields)


def assign(content: Mapping[str, Any], assignments: Iterable[str], flag: str = "--set") -> dict[str, Any]:
    """`content` with each `a.b=value` applied; values are YAML (numbers, true, null, [1, 2], words).

    Raises:
        BadSpec: listing every assignment that has no `=` or no path.
    """
    result: dict[str, Any] = deepcopy(dict(content))
    problems = []
    form = "section.field=value" if flag == "--set" else "name=value"
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            problems.append(f"{flag} {assignment!r}: write it as {form}")
            continue
        try:
            value = load_yaml(text)
        except yaml.YAMLError:
            problems.append(f"{flag} {assignment!r}: {text!r} is not a YAML value")
            continue
        _place(result, keys, value)
    if problems:
        raise BadSpec(problems)
    return result


def _place(content: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value at a path; a key that is there already may have dots in it (an arm called `random-0.05`)."""
    known = (n for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in content)
    taken = next(known, 1)
    key, rest = ".".join(keys[:taken]), keys[taken:]
    if not rest:
        content[key] = value
        return
    inner = content.get(key)
    content[key] = dict(inner) if isinstance(inner, Mapping) else {}
    _place(content[key], rest, value)


def overlay(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` laid over it, mapping by mapping; what is no mapping is replaced."""
    merged = dict(content)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = overlay(below, value)
        merged[key] = value
    return merged


def leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything that is no mapping in nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which 1e-4 is a number, as people who write it mean; in YAML 1.1 it is a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str) -> Any:
    """The content of a YAML text."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def presets() -> dict[str, str]:
    """Name -> one-line title of every shipped preset."""
    folder = files("sparseflow.study") / "presets"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            content = load_yaml(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".yaml")] = content["title"]
    return found


def read_preset(name: str) -> dict[str, Any]:
    """The content of a shipped preset, or of a YAML file if `name` ends in .yaml or .yml.

    Raises:
        UnknownName: for a preset that does not exist.
        BadSpec: for a file that is missing or no YAML mapping.
    """
    if _is_file_name(name):
        path = Path(name)
        if not path.is_file():
            raise BadSpec([f"no file {name!r}"])
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise BadSpec([f"{name}: not UTF-8 text; save it as UTF-8"]) from None
        except OSError as error:
            raise BadSpec([f"{name}: cannot be read: {error.strerror}"]) from None
    else:
        file = files("sparseflow.study") / "presets" / f"{name}.yaml"
        if not file.is_file():
            raise UnknownName("preset", name, presets(), also="or a path ending in .yaml")
        text = file.read_text(encoding="utf-8")
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise BadSpec([f"{name}: not valid YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise BadSpec([f"{name}: expected a mapping of sections, got {type(content).__name__}"])
    return content


def _is_file_name(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml"))
