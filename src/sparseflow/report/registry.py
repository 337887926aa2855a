"""Reports by kind of study: each kind enters the function that makes its sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseflow.core import Catalog
from sparseflow.report.blocks import Section
from sparseflow.study import Store


@dataclass(frozen=True)
class Study:
    """A study of the store, and the folder its report goes to."""

    name: str
    content: Mapping[str, Any]
    store: Store
    folder: Path

    @property
    def figures(self) -> Path:
        return self.folder / "figures"


@dataclass(frozen=True)
class Report:
    """What a kind of study has to say."""

    title: str
    sections: Sequence[Section]


reports: Catalog[Callable[[Study], Report]] = Catalog("study kind")
