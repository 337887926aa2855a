"""What is run for an item of a paper, and how a paper calls what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import cache
from itertools import product
from typing import Any

from sparseflow.reproduce.items import FOLDER
from sparseflow.study import load_yaml, overlay, read_preset

DATASETS: Mapping[str, str] = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar-10": "CIFAR-10",
    "cifar-100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
    "imagenet": "ImageNet",
}

_EPOCHS = {"fashion-mnist": 500, "cifar-10": 1000, "cifar-100": 1000}
"""Of the capacity-matched comparisons (001 sec. 3.3.3; Fashion-MNIST: A.4)."""


@dataclass(frozen=True)
class Part:
    """One study of an experiment.

    Attributes:
        labels: what all of its runs have in common, axis -> label ("Dataset" -> "CIFAR-100").
        content: its specification, as a file of it is written; at the paper's own scale.
    """

    labels: Mapping[str, str]
    content: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.content.get("kind", "pairs"))


@dataclass(frozen=True)
class Experiment:
    """What is run for an item, and how it is read.

    Attributes:
        parts: studies, in order; empty for what needs no training.
        reads: the reader of a table's cells (`readers`).
        columns: the axes that the levels of a table's column headings are labels of.
        shows: names of the figures of the studies' reports that are the item's.
        makes: the maker of an item that needs no study (`makers`), and its options.
        analyses: the analysis of the networks that the studies' runs ended with (`analyses`), which are then kept.
        calls: arm or family of arms -> what the paper calls it: axis -> label, beside `axes`, study's axis -> paper's.
        relabel: axis -> {label of the study: label of the paper}.
        options: of the reader, the maker or the analysis.
        lacks: what the item has and this experiment cannot give, in words; empty where it is whole.
    """

    item: str
    parts: tuple[Part, ...] = ()
    reads: str | None = None
    columns: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    makes: str | None = None
    analyses: str | None = None
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    relabel: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    lacks: str = ""


def experiments() -> Mapping[str, Experiment]:
    """Every item's experiment, by the item's id."""
    return {name: experiment(name) for name in _written()}


@cache
def experiment(item: str) -> Experiment:
    """The experiment of one item."""
    return _experiment(item, _written()[item])


@cache
def _written() -> Mapping[str, Any]:
    """Item -> what the files say."""
    found: dict[str, Any] = {}
    for path in sorted((FOLDER / "experiments").glob("*.yaml")):
        written = load_yaml(path.read_text(encoding="utf-8"))
        found |= {name: content for name, content in written.items() if not name.startswith(".")}
    return found


def _experiment(item: str, content: Mapping[str, Any]) -> Experiment:
    known = {"pairs", "study"} | {one.name for one in fields_of(Experiment)} - {"item", "parts"}
    if strange := sorted(set(content) - known):
        raise ValueError(f"{item}: {strange[0]} (known: {', '.join(sorted(known))})")
    parts = [part for one in _listed(content.get("pairs")) for part in _pairs(one)]
    parts += [_study(one) for one in _listed(content.get("study"))]
    return Experiment(
        item,
        tuple(parts),
        content.get("reads"),
        tuple(_listed(content.get("columns"))),
        tuple(_listed(content.get("shows"))),
        content.get("makes"),
        content.get("analyses"),
        content.get("calls") or {},
        content.get("relabel") or {},
        content.get("options") or {},
        content.get("lacks") or "",
    )


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else [value]


def _pairs(written: Mapping[str, Any]) -> list[Part]:
    """Capacity-matched comparisons: one study for each data set, depth and learning rate."""
    fields = dict(written)
    many = [_listed(fields.pop(name, default)) for name, default in (("data", None), ("depth", 4), ("lr", None))]
    parts = []
    for data, depth, lr in product(*many):
        layers = f"{depth} hidden layer{'s' if depth > 1 else ''}"
        grid = {key: _listed(fields[key]) for key in ("optimizers", "variants", "activations") if key in fields}
        content = {
            "title": f"Sparse against dense at equal capacity, {DATASETS[data]}, {layers}, learning rate {lr:g}",
            "data": {"name": data},
            "model": {"depth": depth},
            "optimizer": {"lr": lr},
            "train": {"epochs": _EPOCHS[data]},
            "compare": grid,
        }
        labels = {"Dataset": DATASETS[data], "Hidden layers": str(depth), "Learning rate": f"{lr:g}"}
        parts.append(Part(labels, content))
    return parts


def _study(written: Mapping[str, Any]) -> Part:
    """A preset with changes laid over it, or a study written out."""
    content: dict[str, Any] = read_preset(written["preset"]) if "preset" in written else {}
    content = overlay(content, written.get("with") or {})
    for path in written.get("without") or ():
        _remove(content, path.split("/"))
    return Part(written.get("labels") or {}, content)


def _remove(content: dict[str, Any], path: Sequence[str]) -> None:
    """Take out what is at a path of keys; the mappings on the way are copied, for presets share anchors."""
    key, *rest = path
    if not rest:
        del content[key]
        return
    content[key] = dict(content[key])
    _remove(content[key], rest)
