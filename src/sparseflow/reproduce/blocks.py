"""The sections of an item's page: the paper's table with the measured numbers in it, agreement, claims."""

from __future__ import annotations

from collections.abc import Sequence

from sparseflow.report.blocks import Block, Section, Table, Text, Value
from sparseflow.report.formats import p_colour, p_text
from sparseflow.reproduce.agreement import CellAgreement, TableAgreement
from sparseflow.reproduce.assess import Assessment
from sparseflow.reproduce.claims import Judged
from sparseflow.reproduce.items import PAPERS, Item
from sparseflow.reproduce.measured import Measured
from sparseflow.reproduce.printed import Printed
from sparseflow.reproduce.scale import Scale

_COLOURS = {"seen": "#d5efdc", "in line": "#edf7ef", "contradicted": "#f9d6d0"}


def sections(found: Assessment, scale: Scale, rules: Sequence[str], figures: Sequence[Block]) -> list[Section]:
    """What a reader of the paper looks for first.

    Args:
        rules: what the scale changed, in words.
        figures: the item's own, of its studies' reports.
    """
    item = found.item
    head: list[Block] = [Text(f"{PAPERS[item.paper]}, {item.where}: {item.shows}.".replace("..", "."))]
    head.append(Text(" ".join(rules)))
    head += [Text(f"The papers disagree here: {flag}") for flag in item.flags]
    shown = [Section("What is reproduced", head)]
    if found.table is not None:
        shown.append(Section("The paper's table, measured", [_table(item, found.table), Text(summary(found.table))]))
    if figures:
        shown.append(Section("The paper's figure, measured", list(figures)))
    if found.claims:
        shown.append(Section("What the paper says of it", [_claims(found.claims, scale)]))
    return shown


def _table(item: Item, table: TableAgreement) -> Table:
    paper = table.table
    rows: list[list[Value | str]] = [
        [*labels, *(_cell(cell) for cell in line)] for labels, line in zip(paper.rows, table.cells, strict=True)
    ]
    header = [*paper.axes, *(" ".join(heading) for heading in paper.columns)]
    caption = "Rows and columns as in the paper. Each cell: measured here, and in brackets what the paper printed."
    numbers = [cell.measured for row in table.cells for cell in row if cell.measured and cell.measured.is_number]
    if any(measured.spread == measured.spread for measured in numbers):
        caption += " Means ± one standard deviation over runs."
    if numbers:
        caption += " Point at a cell for the number of runs and the test behind it."
    if table.sides():
        caption += (
            " p-values are exact; the papers printed the normal approximation, which is shown with the exact one where "
            "one points. Green (0): sparse ahead; red (1): not. Bold: on the paper's side of 0.05."
        )
    return Table(f"{item.id}: {item.phrase}", caption, header, rows, labels=len(paper.axes))


def _cell(cell: CellAgreement) -> Value | str:
    printed = f" ({cell.printed.text})" if cell.printed.text else ""
    if cell.measured is None:
        return f"–{printed}" if printed else ""
    if not cell.measured.is_number:
        return Value(f"{cell.measured.text}{printed}", hint=cell.measured.hint)
    hint = cell.measured.hint or f"{cell.measured.n} runs"
    if cell.side:
        hint += f"; {cell.side} of 0.05 as the paper" if cell.side != "cannot tell" else "; too few pairs to reach 0.05"
    elif cell.low == cell.low:
        hint += f"; measured minus printed {cell.difference:+.3g}, 95 % interval [{cell.low:+.3g}, {cell.high:+.3g}]"
    colour = p_colour(cell.measured.value) if cell.measured.is_p else ""
    return Value(f"{number(cell.measured)}{printed}", colour, hint, cell.side == "same side")


def number(measured: Measured, digits: int = 4) -> str:
    """A measured number as tables show it."""
    if not measured.is_number:
        return measured.text or "–"
    if measured.is_p:
        return p_text(measured.value)
    spread = f" ± {measured.spread:.2g}" if measured.spread == measured.spread else ""
    return f"{measured.value:.{digits}g}{spread}"


def summary(table: TableAgreement) -> str:
    """How the table agrees as a whole, in words."""
    compared, printed = table.compared, len(table.table.numbers)
    settings = [(cell.printed, cell.measured.text) for row in table.cells for cell in row if cell.measured is not None]
    if settings and all(text for _, text in settings):
        numbers = [(cell, Printed.read(text)) for cell, text in settings]
        both = [(a.value, b.value) for a, b in numbers if a.is_number and b.is_number]
        return (
            f"{len(settings)} settings are read from the specifications. Where both are plain numbers, "
            f"{sum(a == b for a, b in both)} of {len(both)} are equal."
        )
    if not compared:
        return f"Nothing has been measured yet for the {printed} numbers of this table."
    words = f"{len(compared)} of {printed} printed numbers have a measured one beside them."
    sides = table.sides()
    if sides:
        same = sides.get("same side", 0)
        told = same + sides.get("other side", 0)
        words += f" Of the p-values that could reach 0.05, {same} of {told} are on the paper's side of it."
        if left := sides.get("cannot tell", 0):
            words += f" {left} rest on too few pairs to reach it at all."
    if table.tau == table.tau:
        words += (
            f" Order: Kendall's tau between printed and measured numbers is {table.tau:.2f} over {table.ranked} cells "
            "(1: the same order, 0: none in common; cells share runs, so this has no p-value)."
        )
    elif columns := {name: t for name, t in table.by_column.items() if t[0] == t[0]}:
        listed = ", ".join(f"{name} {tau:.2f} ({n})" for name, (tau, n) in columns.items())
        words += f" Order: Kendall's tau by column (cells): {listed}."
    return words


def _claims(claims: Sequence[Judged], scale: Scale) -> Table:
    rows: list[list[Value | str]] = [
        [
            c.claim.says,
            c.claim.where,
            Value(c.verdict, _COLOURS.get(c.verdict, ""), strong=c.verdict == "seen"),
            c.evidence,
        ]
        for c in claims
    ]
    caption = (
        "Seen: the one-sided paired signed-rank test over runs that differ in nothing else finds it at 0.05 (claims of "
        "single p-values: every cell named). In line: the claim is that one thing does not beat another, and no test "
        "finds that it does. Contradicted: the test finds the opposite. Not judged: the claim is in words "
        "that no rule covers; look at the figure."
    )
    if not scale.full:
        caption += " At a smaller scale than the paper's, a claim that is not seen may need the paper's own."
    return Table("Claims", caption, ["the paper says", "where", "here", "evidence"], rows, words=True)
