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
    """A study of the store.

    Attributes:
        folder: that its report goes to.
        home: of the store, and of the networks that its runs left; None for `folder`.
    """

    name: str
    content: Mapping[str, Any]
    store: Store
    folder: Path
    home: Path | None = None

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def runs(self) -> Path:
        """Where its runs and their networks are."""
        return self.folder if self.home is None else self.home


@dataclass(frozen=True)
class Report:
    """What a kind of study has to say."""

    title: str
    sections: Sequence[Section]


reports: Catalog[Callable[[Study], Report]] = Catalog("study kind")
