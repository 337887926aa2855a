"""The tables and figures of the papers: what each shows, what the paper printed and what its text claims of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from sparseflow.core import UnknownName
from sparseflow.reproduce.printed import PaperTable
from sparseflow.study import load_yaml

PAPERS: Mapping[str, str] = {
    "000": "Keep the Gradients Flowing (conference version)",
    "001": "Keep the Gradients Flowing (report, with SC-SDC, EGF and SNAS)",
    "003": "Train your sparse network: the ToST toolkit",
    "004": "Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win",
}
"""Number -> the paper, as docs/reproduction.md and the docstrings cite it."""

FOLDER = Path(str(files("sparseflow.reproduce")))


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of a paper about one of its items.

    Attributes:
        says, where: the claim in this project's words, and where the paper makes it.
        more: two selections of what the item shows, axis -> labels; the first is claimed to be larger.
        significant, not_significant: (row, column) of a table of p-values, said to be below 0.05, or not.
    """

    says: str
    where: str
    more: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
    significant: tuple[tuple[str, str], ...] = ()
    not_significant: tuple[tuple[str, str], ...] = ()

    @property
    def checkable(self) -> bool:
        return self.more is not None or bool(self.significant or self.not_significant)


@dataclass(frozen=True)
class Item:
    """One table or figure.

    Attributes:
        id: such as "001.table3.3a".
        phrase, needs: in few words, what it shows and which data and network it takes.
        shows, where: in a sentence, and where in the paper.
        flags: places in which the papers contradict themselves or each other there.
    """

    id: str
    paper: str
    kind: Literal["table", "figure"]
    phrase: str
    needs: str
    shows: str
    where: str
    flags: tuple[str, ...]
    claims: tuple[PaperClaim, ...]

    @property
    def printed(self) -> PaperTable | None:
        """What the paper printed; None for a figure, whose numbers the text does not give."""
        path = FOLDER / "papers" / f"{self.id}.csv"
        return PaperTable.read(path) if path.is_file() else None


@cache
def items() -> Mapping[str, Item]:
    """Every table and figure, by id, in the papers' order."""
    described: dict[str, Any] = {}
    for paper in PAPERS:
        described |= load_yaml((FOLDER / "papers" / f"{paper}.yaml").read_text(encoding="utf-8"))
    with (FOLDER / "items.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["id"]: _item(row, described[row["id"]]) for row in rows}


def item_named(name: str) -> Item:
    """The item of this id.

    Raises:
        UnknownName: if there is none; with those of the same paper.
    """
    known = items()
    if name not in known:
        near = [one for one in known if one.startswith(name)] or [one for one in known if name.lower() in one.lower()]
        raise UnknownName("table or figure", name, near or list(known), also="see `sparseflow reproduce --list`")
    return known[name]


def _item(row: Mapping[str, str], more: Mapping[str, Any]) -> Item:
    kind: Literal["table", "figure"] = "table" if row["kind"] == "table" else "figure"
    claims = tuple(_claim(claim) for claim in more.get("claims") or ())
    flags = tuple(more.get("flags") or ())
    return Item(row["id"], row["paper"], kind, row["phrase"], row["needs"], more["shows"], more["where"], flags, claims)


def _claim(content: Mapping[str, Any]) -> PaperClaim:
    more: Sequence[Mapping[str, Any]] | None = content.get("more")
    return PaperClaim(
        content["says"],
        content["where"],
        None if more is None else (more[0], more[1]),
        tuple((str(row), str(column)) for row, column in content.get("significant") or ()),
        tuple((str(row), str(column)) for row, column in content.get("not_significant") or ()),
    )
