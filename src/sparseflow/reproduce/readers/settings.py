"""Tables of settings, read from the specifications that an item's studies have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

from sparseflow.reproduce.experiment import DATASETS
from sparseflow.reproduce.measured import Measured, Place, agrees
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.shrink import papers_sizes
from sparseflow.reproduce.source import Source
from sparseflow.search import SearchSpec
from sparseflow.study import ArmsSpec, CompareSpec, RunSpec, arms_of, validate, widths_of

MOMENTUM = 0.9
"""Of the optimiser `momentum`, unless a specification has another."""


class _Absent(Exception):
    """A path that leads nowhere; its text says where it ends."""


@readers.add("settings", cite="000 Table 2; 001 Tables 3.2 and 4.1; 004 Tables 3 and 4", runs=False)
def settings(sources: Sequence[Source], place: Place) -> Measured | None:
    """What the studies were told, as text; it needs no run to have ended.

    Option: `fields` is, for every label of the axis Setting, a dotted path in the study's specification, or a list of
    paths of which each study has some. A path that begins with `base` goes on in a run's specification, defaults
    included, one with `arms.NAME` in that arm's. Beside a run's own fields there are `steps`, `sparsity` (per cent),
    `rewire.end` (the last step with updates) and, of a comparison of pairs, `dense_widths`. Different values of several
    studies are listed.

    Raises:
        ValueError: for a label without a path, or a path that a study that the cell is about does not have.
    """
    if not sources:
        return None
    fields: Mapping[str, Any] = sources[0].experiment.options["fields"]
    label = str(place["Setting"])
    if label not in fields:
        return None
    paths = fields[label] if isinstance(fields[label], list) else [fields[label]]
    rest = {axis: value for axis, value in place.items() if axis != "Setting"}
    found: list[str] = []
    for source in sources:
        if agrees(source.called({}), rest):
            found += _values(source, paths)
    return Measured(text=", ".join(dict.fromkeys(found))) if found else None


def _values(source: Source, paths: Sequence[str]) -> Iterator[str]:
    specification = _specification(source.part.kind, json.dumps(source.study.content["spec"]))
    missing = []
    for path in paths:
        try:
            yield from _texts(specification.at(path))
        except _Absent as where:
            missing.append(f"{path} ({where})")
    if len(missing) == len(paths):
        raise ValueError(f"{specification.title}: no setting {'; '.join(missing)}")


@dataclass(frozen=True)
class _Specification:
    """A study's, with the specifications of runs that are in it."""

    title: str
    whole: Mapping[str, Any]
    base: RunSpec
    arms: Mapping[str, RunSpec]
    widths: Sequence[int] = ()

    def at(self, path: str) -> Any:
        """What is at a path, as `settings` has them."""
        if path == "dense_widths" and self.widths:
            return self.widths
        if path.startswith("base."):
            return _of_run(self.base, path.removeprefix("base."))
        if path.startswith("arms."):
            rest = path.removeprefix("arms.")
            name = max((name for name in self.arms if rest.startswith(f"{name}.")), key=len, default=None)
            if name is None:
                raise _Absent(f"arms: {', '.join(self.arms)}")
            return _of_run(self.arms[name], rest.removeprefix(f"{name}."))
        return _walk(self.whole, path)


@lru_cache(maxsize=16)
def _specification(kind: str, content: str) -> _Specification:
    spec = json.loads(content)
    if kind == "arms":
        study = validate(ArmsSpec, spec)
        arms = {arm.name: arm.points[0].spec for arm in arms_of(study)}
        return _Specification(study.title, study.model_dump(mode="json"), validate(RunSpec, study.base), arms)
    if kind == "search":
        search = validate(SearchSpec, spec)
        return _Specification(search.title, search.model_dump(mode="json"), validate(RunSpec, search.base), {})
    pairs = validate(CompareSpec, spec)
    shared = {name: getattr(pairs, name) for name in RunSpec.model_fields}
    base = RunSpec.model_construct(**shared)  # has been checked as a comparison's
    widths = widths_of(pairs, papers_sizes(pairs.data.name)[2])
    return _Specification(pairs.title, pairs.model_dump(mode="json"), base, {}, widths)


def _of_run(spec: RunSpec, path: str) -> Any:
    derived = _DERIVED.get(path)
    return derived(spec) if derived is not None else _walk(spec.model_dump(mode="json"), path)


def _walk(content: Any, path: str) -> Any:
    keys = path.split(".")
    for number, key in enumerate(keys):
        if not isinstance(content, Mapping) or key not in content:
            raise _Absent(".".join(keys[: number + 1]))
        content = content[key]
    return content


def _steps(spec: RunSpec) -> int:
    """Optimiser steps, of the papers' data."""
    there = spec.data.train_limit or papers_sizes(spec.data.name)[0]
    left = there - round(there * spec.data.val_fraction)
    return spec.train.epochs * ceil(left / spec.train.batch_size)


def _sparsity(spec: RunSpec) -> float:
    if spec.mask.density is None:
        raise _Absent("it has no density of its own")
    return 100.0 * (1.0 - spec.mask.density)


def _last_update(spec: RunSpec) -> int:
    if spec.rewire is None:
        raise _Absent("its masks do not change")
    return round(spec.rewire.stop * _steps(spec))


def _momentum(spec: RunSpec) -> float:
    if spec.optimizer.name != "momentum":
        raise _Absent(f"{spec.optimizer.name} has none")
    return MOMENTUM if spec.optimizer.momentum is None else spec.optimizer.momentum


_DERIVED: Mapping[str, Callable[[RunSpec], Any]] = {
    "steps": _steps,
    "sparsity": _sparsity,
    "rewire.end": _last_update,
    "optimizer.momentum": _momentum,
}


def _texts(value: Any) -> list[str]:
    """A setting as it is shown: the entries of a list, of a mapping its name or those of its levels."""
    if isinstance(value, Mapping) and "name" in value:
        return _texts(value["name"])
    if isinstance(value, Mapping | list | tuple):
        return [text for one in value for text in _texts(one)]
    if value is None:
        return ["none"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int | float):
        return [f"{value:.10g}"]
    return [DATASETS.get(str(value), str(value))]
