"""The scoreboard of what reproduces: a page made from the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sparseflow.reproduce.items import PAPERS, Item, items
from sparseflow.reproduce.ledger import Record

HEAD = """\
# What reproduces

This page is written by `sparseflow reproduce --scoreboard` from the records in `results/`; no number in it is typed by
hand. Every table and figure of the four papers is listed. *Seen*: a one-sided paired test over runs finds the claim at
0.05. *In line*: the claim is that one thing does not beat another, and no test finds that it does. *Contradicted*: the
test finds the opposite. *Not seen*: none of these. *Cannot tell*: too few pairs to show it. *Not judged*: no rule
covers it; the figure is in the item's folder. Scales and their rules: [reproduce](reproduce.md).
"""

_ORDER = ("seen", "in line", "not seen", "contradicted", "cannot tell", "not judged")


def scoreboard(found: Mapping[str, Sequence[Record]]) -> str:
    """The page as Markdown.

    Args:
        found: item -> its records.
    """
    every = items()
    verdicts = Counter(claim["verdict"] for of in found.values() for record in of for claim in record.claims)
    counted = ", ".join(f"{verdicts[v]} {v}" for v in _ORDER if verdicts[v])
    parts = [HEAD, f"{len(found)} of {len(every)} items have been run. Of their claims: {counted or 'none judged'}.\n"]
    for paper, title in PAPERS.items():
        parts.append(f"## {paper}: {title}\n")
        parts.append("| item | shows | scale | here |\n| --- | --- | --- | --- |")
        of_paper = [item for item in every.values() if item.paper == paper]
        parts += [_row(item, record) for item in of_paper for record in found.get(item.id, [None])]
        parts.append("")
        for item in of_paper:
            for record in found.get(item.id, []):
                parts += _details(item, record)
    return "\n".join(parts).rstrip() + "\n"


def _row(item: Item, record: Record | None) -> str:
    if record is None:
        return f"| {item.id} | {_cell(item.phrase)} | – | not run |"
    verdicts = Counter(claim["verdict"] for claim in record.claims)
    words = ", ".join(f"{verdicts[v]} {v}" for v in _ORDER if verdicts[v])
    here = f"claims: {words}" if words else "run"
    return (
        f"| [{_title(record)}](#{_anchor(_title(record))}) | {_cell(item.phrase)} | {record.facts['scale']} | {here} |"
    )


def _details(item: Item, record: Record) -> list[str]:
    facts = record.facts
    lines = [f"### {_title(record)}\n", f"{item.where}. {_sentence(item.shows)} {' '.join(facts['rules'])}\n"]
    if facts.get("summary"):
        lines.append(f"{facts['summary']}\n")
    if record.claims:
        lines.append("| the paper says | here | evidence |\n| --- | --- | --- |")
        lines += [
            f"| {_cell(c['says'])} ({_cell(c['where'])}) | {c['verdict']} | {_cell(c['evidence'])} |"
            for c in record.claims
        ]
        lines.append("")
    lines += [f"![{_title(record)}: {name}](../results/{record.name}/{name}.svg)\n" for name in facts["figures"]]
    ended = f"{facts['ended']} of {facts['runs']} runs" if facts["ended"] < facts["runs"] else f"{facts['runs']} runs"
    if facts["runs"]:
        diverged = f", {facts['diverged']} diverged" if facts["diverged"] else ""
        when = f"{facts['from'][:10]} to {facts['until'][:10]}"
        lines.append(
            f"{ended}{diverged}, {facts['worker_seconds']:,.0f} s of one worker, {when}, on "
            f"{'; '.join(facts['machine'])}. Files: `results/{record.name}/`.\n"
        )
    return lines


def _title(record: Record) -> str:
    data = record.facts.get("data")
    return f"{record.facts['item']} on {data}" if data else str(record.facts["item"])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
