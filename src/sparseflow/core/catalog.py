"""One kind of named, citable method: a table that the methods enter themselves into.

A floor that owns a kind of method (activations, optimisers, matching rules ...) makes one `Catalog`; a method is one
decorated function. Law tests and `sparseflow list` walk the catalogs, so a new entry is tested and shown without an
edit elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from sparseflow.core.errors import SparseflowError, UnknownName

T = TypeVar("T")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One method: its name, the thing itself, where it comes from, a line about it, and facts the laws need."""

    name: str
    make: T
    cite: str
    summary: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Catalog(Generic[T]):
    """Methods of one kind by name, in the order in which they were added."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, *, cite: str, **facts: Any) -> Callable[[Made], Made]:
        """Decorator that enters a function or class under `name`; the first line of its docstring is its summary.

        Args:
            name: what users write.
            cite: author, year and where, or "standard" for textbook methods.
            facts: what the shared laws must know about the method.

        Raises:
            SparseflowError: if the name is taken or the method has no docstring.
        """

        def enter(make: Made) -> Made:  # its own type, which says more than T
            if name in self._entries:
                raise SparseflowError(f"{self.kind} {name!r} is already in the catalog")
            doc = (getattr(make, "__doc__", None) or "").strip()
            if not doc:
                raise SparseflowError(f"{self.kind} {name!r} needs a docstring: its first line is what `list` shows")
            self._entries[name] = Entry(name, cast(T, make), cite, doc.splitlines()[0], facts)
            return make

        return enter

    def entry(self, name: str) -> Entry[T]:
        """The entry called `name`.

        Raises:
            UnknownName: with the known names and the nearest one.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._entries) from None

    def __getitem__(self, name: str) -> T:
        return self.entry(name).make

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> list[str]:
        return list(self._entries)
