"""The specification of a study of any kind, from what a file of it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseflow.search import SearchSpec
from sparseflow.study import ArmsSpec, CompareSpec, validate

AnySpec = CompareSpec | ArmsSpec | SearchSpec


def specification(content: Mapping[str, Any]) -> tuple[str, AnySpec]:
    """The kind of study, as the store names it, and its specification.

    Raises:
        BadSpec: listing every mistake.
    """
    kind = content.get("kind", "pairs")
    if kind == "pairs":
        return "compare", validate(CompareSpec, {key: value for key, value in content.items() if key != "kind"})
    if kind == "arms":
        return "arms", validate(ArmsSpec, content)
    return "search", validate(SearchSpec, content)
