"""Every error the toolkit raises on purpose: one sentence that names the thing and what would have worked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparseflowError(Exception):
    """Base of all errors that a user can cause and mend; the command line prints them without a traceback."""


class UnknownName(SparseflowError):
    """A name that its catalog does not hold."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, also: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6) or [
            n for n in names if n.lower() == name.lower()
        ]
        guess = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(names) or "none"
        super().__init__(f"unknown {kind} {name!r} (known: {listed}{f', {also}' if also else ''}){guess}")


class BadValue(SparseflowError, ValueError):
    """An argument outside of its domain."""


class BadData(SparseflowError):
    """A data file or folder that is missing, damaged or not what it claims to be."""


class BadSpec(SparseflowError):
    """A specification with one or more mistakes, all of them listed."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class BadStore(SparseflowError):
    """A results store that cannot be opened, written or understood."""


class Busy(SparseflowError):
    """The output folder is in use by another process."""


def check_fraction(what: str, value: float) -> float:
    """Return `value` if it lies in (0, 1], the domain of densities and fractions kept.

    Raises:
        BadValue: otherwise (NaN included).
    """
    if not 0.0 < value <= 1.0:
        raise BadValue(f"{what} must be in (0, 1], got {value:g}")
    return value


def check_positive(what: str, value: int) -> int:
    """Return `value` if it is at least 1.

    Raises:
        BadValue: otherwise.
    """
    if value < 1:
        raise BadValue(f"{what} must be at least 1, got {value}")
    return value
