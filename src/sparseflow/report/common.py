"""Sections that every report has: versions, machine, specification."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy
import scipy
import torch
import yaml

from sparseflow.report.blocks import Section, Table, Text
from sparseflow.study import DataFacts


def provenance(
    content: Mapping[str, Any], data: Sequence[DataFacts], results: Mapping[str, Mapping[str, Any]]
) -> Section:
    """What was asked for, on which data, with which software, and what it took."""
    wall = sum(r["wall_s"] for r in results.values())
    flops = sum(r["training_flops"] for r in results.values())
    starts = [r["started"][:19] for r in results.values() if r["started"]]
    ends = [r["finished"][:19] for r in results.values() if r["finished"]]
    prints = sorted({r["fingerprint"] for r in results.values() if r["fingerprint"]})
    mixed = sum(bool(r["mixed"]) for r in results.values())
    rows = [
        *[["data", f"{facts.name}: {facts.train_size:,} training and {facts.test_size:,} test examples of shape "
           f"{'x'.join(map(str, facts.input_shape))}, {facts.classes} classes, digest {facts.digest}"]
          for facts in data],
        *[["note", note] for note in dict.fromkeys(note for facts in data for note in facts.notes)],
        ["report made with", f"sparseflow {version('sparseflow')}, torch {torch.__version__}, "
         f"numpy {numpy.__version__}, scipy {scipy.__version__}, Python {platform.python_version()}"],
        ["runs were made with", "; ".join(prints) or "–"],
        ["mixed runs", f"{mixed} run(s) were resumed under another fingerprint; their bits are not promised"
         if mixed else "none"],
        ["time and work", f"{wall:,.0f} s of worker time, from {min(starts, default='–')} to {max(ends, default='–')}; "
         f"{flops:.3g} training FLOPs counted from active weights"],
    ]  # fmt: skip
    spec = yaml.safe_dump(dict(content["spec"]), sort_keys=False, allow_unicode=True).strip()
    table = Table("How this was made", "", ["", ""], rows)
    return Section("Provenance", [table, Text(f"Specification (what differs from the defaults):\n{spec}", kind="code")])
