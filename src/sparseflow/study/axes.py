"""Axes along which a study varies its runs: values of a field, or labelled changes of several fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Annotated, Any

from pydantic import BeforeValidator

from sparseflow.study.read import leaves, overlay


def _checked(axis: Any) -> Any:
    if isinstance(axis, Mapping):
        if not axis:
            raise ValueError("needs at least one entry")
        wrong = [str(label) for label, changes in axis.items() if not isinstance(changes, Mapping)]
        if wrong:
            raise ValueError(f"a labelled level is a mapping of changes; {wrong[0]!r} is not")
        return {str(label): dict(changes) for label, changes in axis.items()}
    if not isinstance(axis, list | tuple):
        raise ValueError(f"write a list of values, or a mapping from labels to changes, got {axis!r}")
    if not axis:
        raise ValueError("needs at least one entry")
    if any(isinstance(value, Mapping) for value in axis):
        raise ValueError("values that are mappings need labels: write {label: changes, ...}")
    labels = [label_of(value) for value in axis]
    if len(set(labels)) < len(labels):
        raise ValueError(f"names an entry twice ({', '.join(labels)})")
    return tuple(axis)


Axis = Annotated[Any, BeforeValidator(_checked)]
"""Values of the field that the axis is named after (`optimizer.lr: [0.1, 0.01]`), or label -> changes of any fields."""

Axes = Mapping[str, Any]


def label_of(value: Any) -> str:
    """A value as YAML would have it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Combination:
    """One level of every axis.

    Attributes:
        levels: axis -> label.
        changes: what they change in a run.
    """

    levels: Mapping[str, str]
    changes: Mapping[str, Any]


def combined(axes: Axes) -> list[Combination]:
    """Every combination of levels, the last axis moving fastest; without axes, the one that changes nothing."""
    found = []
    for chosen in product(*([(name, *level) for level in _levels(name, axis)] for name, axis in axes.items())):
        changes: dict[str, Any] = {}
        for _, _, change in chosen:
            changes = overlay(changes, change)
        found.append(Combination({name: label for name, label, _ in chosen}, changes))
    return found


def _levels(name: str, axis: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(axis, Mapping):
        return list(axis.items())
    return [(label_of(value), nested(name, value)) for value in axis]


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} of "a.b"."""
    key, dot, rest = path.partition(".")
    return {key: nested(rest, value) if dot else value}


def set_twice(*groups: Axes) -> list[str]:
    """Fields that more than one axis sets: the label of one of them would not say what was run."""
    fields = [
        {leaf for _, change in _levels(name, axis) for leaf in leaves(change)}
        for axes in groups
        for name, axis in axes.items()
    ]
    return sorted({leaf for one, other in combinations(fields, 2) for leaf in one & other})
