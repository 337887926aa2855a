"""What the pages of analyses share: which networks were looked at, with which settings, and the writing of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sparseflow.core import BadStore
from sparseflow.report.blocks import Section, Table, Text
from sparseflow.report.page import write_page
from sparseflow.study import Loaded

NETWORK_HEADER = ("network", "model", "data", "seed", "moment", "density", "active weights", "test accuracy", "run")


def write_analysis(
    folder: Path,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    nets: Sequence[Loaded],
    settings: Mapping[str, Any],
) -> Path:
    """Write `report.html`: the sections, the networks and the settings. Returns the path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    made = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).strip()
    last = Section("Provenance", [network_table(nets), Text(f"Settings:\n{made}", kind="code")])
    try:
        write_page(folder / "report.html", title, subtitle, [*sections, last])
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    return folder / "report.html"


def network_table(nets: Sequence[Loaded]) -> Table:
    """Every network that was looked at, and the run that it is from."""
    rows = []
    for net in nets:
        run = net.run
        ended = run.at == "final" and run.accuracy is not None
        rows.append(
            [
                net.label,
                run.spec.model.name,
                run.spec.data.name,
                str(run.spec.seed),
                f"step {run.at}" if isinstance(run.at, int) else run.at,
                f"{net.density:.4g}",
                f"{net.active:,}",
                f"{100 * run.accuracy:.2f} %" if ended and run.accuracy is not None else "–",
                f"{run.folder}:{run.spec.name}",
            ]
        )
    caption = "Test accuracy is the run's own, after its last epoch. The run is as the command takes it."
    return Table("The networks", caption, NETWORK_HEADER, rows)
