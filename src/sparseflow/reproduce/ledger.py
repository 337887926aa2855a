"""What was really run, kept as small files: one folder for each item, from which the scoreboard is made."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparseflow.core import BadData, replacing
from sparseflow.report.blocks import Figure, write_csv
from sparseflow.reproduce.assess import Assessment
from sparseflow.reproduce.blocks import summary
from sparseflow.reproduce.measured import Measured
from sparseflow.reproduce.scale import Scale
from sparseflow.reproduce.source import QUANTITIES, Source

_CELLS = [
    "row",
    "column",
    "printed",
    "measured",
    "spread",
    "n",
    "text",
    "p_normal",
    "smallest_p",
    "side",
    "low",
    "high",
]
_CLAIMS = ["says", "where", "verdict", "evidence"]


@dataclass(frozen=True)
class Record:
    """An item that was run.

    Attributes:
        name: of its folder: the item's, and that of the data if they are not the paper's.
        facts: item, scale, rules, date, machine, runs, worker seconds, studies, summary.
        claims: rows of `claims.csv`.
    """

    name: str
    facts: Mapping[str, Any]
    claims: Sequence[Mapping[str, str]]


def record(
    folder: Path,
    found: Assessment,
    sources: Sequence[Source],
    scale: Scale,
    rules: Sequence[str],
    figures: Sequence[Figure],
    data: str | None = None,
) -> Path:
    """Write what an item came to: `record.yaml`, `cells.csv`, `claims.csv`, `runs.csv` and its figures.

    Only what the runs say is written, so that recording the same runs again writes the same files.

    Returns:
        The item's folder.
    """
    place = folder / (f"{found.item.id}-{Path(data).stem}" if data else found.item.id)
    place.mkdir(parents=True, exist_ok=True)
    if found.table is not None:
        write_csv(place / "cells.csv", _CELLS, _cells(found))
    claims = [[c.claim.says, c.claim.where, c.verdict, c.evidence] for c in found.claims]
    write_csv(place / "claims.csv", _CLAIMS, claims)
    axes = list(dict.fromkeys(axis for source in sources for run in source.observed for axis in run.labels))
    rows = [
        [*(run.labels.get(axis, "") for axis in axes), run.seed, *(_short(run.values.get(q)) for q in QUANTITIES)]
        for source in sources
        for run in source.observed
    ]
    if rows:
        write_csv(place / "runs.csv", [*axes, "seed", *QUANTITIES], rows)
    for figure in figures:
        with replacing(place / f"{figure.name}.svg") as aside:
            aside.write_text(figure.svg, encoding="utf-8")
    facts = {
        "item": found.item.id,
        "scale": scale.name,
        **({"data": data} if data else {}),
        "rules": list(rules),
        "summary": summary(found.table) if found.table is not None else "",
        "figures": [figure.name for figure in figures],
        **_runs(sources),
        "studies": [dict(source.study.content["spec"]) for source in sources],
    }
    with replacing(place / "record.yaml") as aside:
        aside.write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    return place


def records(folder: Path) -> dict[str, list[Record]]:
    """Item -> its records, that on the paper's data first, of every item that was recorded here.

    Raises:
        BadData: for a record that cannot be read.
    """
    found: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("*/record.yaml")):
        try:
            facts = yaml.safe_load(path.read_text(encoding="utf-8"))
            with (path.parent / "claims.csv").open(newline="", encoding="utf-8") as file:
                claims = list(csv.DictReader(file))
            found.setdefault(str(facts["item"]), []).append(Record(path.parent.name, facts, claims))
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise BadData(f"{path}: no record of an item: {error}") from None
    return found


def _cells(found: Assessment) -> list[list[object]]:
    assert found.table is not None
    rows: list[list[object]] = []
    for labels, line in zip(found.table.table.rows, found.table.cells, strict=True):
        for heading, cell in zip(found.table.table.columns, line, strict=True):
            m = cell.measured
            rows.append(
                [
                    " | ".join(labels),
                    " | ".join(heading),
                    cell.printed.text,
                    *([None] * 6 if m is None else _numbers(m)),
                    cell.side,
                    _short(cell.low),
                    _short(cell.high),
                ]
            )
    return rows


def _numbers(m: Measured) -> list[object]:
    return [_short(m.value), _short(m.spread), m.n, m.text, _short(m.normal), _short(m.smallest)]


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.6g}")


def _runs(sources: Sequence[Source]) -> dict[str, Any]:
    """Of the runs behind an item: how many, when, on what, how long."""
    names = sorted({name for source in sources for name in source.runs})
    known = {name: result for source in sources for name, result in source.results.items()}
    ended = [known[name] for name in names if name in known]
    return {
        "runs": len(names),
        "ended": len(ended),
        "diverged": sum(r["status"] == "diverged" for r in ended),
        "from": min((r["started"][:19] for r in ended if r["started"]), default=""),
        "until": max((r["finished"][:19] for r in ended if r["finished"]), default=""),
        "worker_seconds": round(sum(r["wall_s"] for r in ended), 1),
        "machine": sorted({r["fingerprint"] for r in ended if r["fingerprint"]}),
    }
