"""Arrows point down: a floor imports floors below it and itself, never one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparseflow

ROOT = Path(sparseflow.__file__).parent

# Bottom to top; two floors of one level may not import each other.
LEVELS = (
    ("core",),
    ("autodiff",),
    ("stats",),
    ("models", "data"),
    ("sparse",),
    ("masks",),
    ("init",),
    ("tost",),
    ("train",),
    ("measure",),
    ("study",),
    ("search",),
    ("report",),
    ("reproduce",),
    ("bench",),
    ("cli",),
)
LEVEL = {floor: level for level, floors in enumerate(LEVELS) for floor in floors}
TOP_FILES = {"__init__.py", "__main__.py"}


def floor_of(dotted: str) -> str:
    """The floor that a module of the package lies on, "" for the package itself."""
    return dotted.split(".")[1] if "." in dotted else ""


def dotted_name(file: Path, root: Path) -> str:
    parts = [root.name, *file.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything of `sparseflow` that the source imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - (node.level - 1)]
                base = ".".join([*package, *([node.module] if node.module else [])])
            # `from sparseflow import data` is an arrow to data, `from sparseflow import Sparse` one to the top.
            names = [f"{base}.{alias.name}" if base == "sparseflow" else base for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "sparseflow":
                yield node.lineno, name


def upward_arrows(source: str, module: str, is_package: bool = False) -> list[str]:
    """`line: what is wrong` for each import that does not point down."""
    here = floor_of(module)
    wrong = []
    for line, name in imported(source, module, is_package):
        there = floor_of(name)
        if name == "sparseflow.__version__" and here == "cli":
            continue
        if there not in LEVEL:
            wrong.append(f"{line}: {here} imports the top package ({name})")
        elif there != here and LEVEL[there] >= LEVEL[here]:
            wrong.append(f"{line}: {here} imports {there}, which is not below it")
    return wrong


def modules() -> list[Path]:
    return sorted(file for file in ROOT.rglob("*.py") if not (file.parent == ROOT and file.name in TOP_FILES))


def test_every_folder_is_a_known_floor():
    assert {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in modules()} <= LEVEL.keys()


def test_no_arrow_points_up():
    wrong = []
    for file in modules():
        arrows = upward_arrows(file.read_text(), dotted_name(file, ROOT), file.name == "__init__.py")
        wrong += [f"{file.relative_to(ROOT.parent)}:{arrow}" for arrow in arrows]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sparseflow.core.x", "import sparseflow.train"),
        ("sparseflow.core.x", "from sparseflow.train import Trainer"),
        ("sparseflow.core.x", "from sparseflow.train.loop import Trainer"),
        ("sparseflow.core.x", "from sparseflow import train"),
        ("sparseflow.core.x", "from .. import train"),
        ("sparseflow.core.x", "from ..train import loop"),
        ("sparseflow.core.x", "def late():\n    from sparseflow.models import MLP"),
        ("sparseflow.core.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sparseflow.models"),
        ("sparseflow.core.x", "import os, sparseflow.stats as s"),
        ("sparseflow.masks.x", "import sparseflow"),
        ("sparseflow.masks.x", "from sparseflow import Sparse"),
        ("sparseflow.masks.x", "from sparseflow import __version__"),
        ("sparseflow.models.x", "from sparseflow.data import load"),
        ("sparseflow.data.x", "from sparseflow.models import MLP"),
        ("sparseflow.study.x", "from sparseflow.report.page import page"),
        ("sparseflow.report.x", "from sparseflow.notafloor import page"),
    ],
)
def test_the_law_sees_an_upward_arrow(module, source):
    assert len(upward_arrows(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sparseflow.train.x", "from sparseflow.core import Masks\nfrom sparseflow import data\nfrom .y import z"),
        ("sparseflow.train.x", "import torch\nimport sparseflowers\nfrom torch import nn"),
        ("sparseflow.cli.x", "from sparseflow import __version__\nfrom sparseflow.bench import step"),
    ],
)
def test_the_law_lets_downward_arrows_pass(module, source):
    assert not upward_arrows(source, module)


def test_relative_imports_of_a_package_are_seen_from_the_package():
    assert not upward_arrows("from .loop import Trainer", "sparseflow.train", is_package=True)
    assert upward_arrows("from ..study import spec", "sparseflow.train", is_package=True)


def test_no_cycles_among_modules():
    """Imports at the top of modules form no cycle: any module can be imported first."""
    names = {dotted_name(file, ROOT): file for file in modules()}
    edges: dict[str, set[str]] = {}
    for name, file in names.items():
        tree = ast.parse(file.read_text())
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        found = set()
        for node in top:
            for line, base in imported(ast.unparse(node), name, file.name == "__init__.py"):
                assert line == 1
                # `from package import module` depends on the module where it names one.
                members = [f"{base}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                found |= {m for m in members if m in names} or ({base} & names.keys())
        edges[name] = found - {name}
    assert not cycle_in(edges)
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    """A path that ends where it starts, or nothing."""
    done: set[str] = set()

    def walk(path: list[str]) -> list[str]:
        for name in sorted(edges.get(path[-1], ())):
            if name in path:
                return [*path[path.index(name) :], name]
            if name not in done and (found := walk([*path, name])):
                return found
        done.add(path[-1])
        return []

    return next((found for name in sorted(edges) if name not in done and (found := walk([name]))), [])
