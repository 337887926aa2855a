"""Every item runs at the smallest scale; two of them, others every day, are tried here."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from commands import said
from real_data import real_data_root
from sparseflow.reproduce.items import items
from sparseflow.reproduce.scale import LADDER

SAMPLE = 2
ROOT = real_data_root()


def of_the_day(number: int) -> str:
    """A stretch of the items that moves on with the date; all have had their turn after 76 days."""
    names = list(items())
    return names[(SAMPLE * datetime.now(timezone.utc).toordinal() + number) % len(names)]


@pytest.mark.slow
@pytest.mark.skipif(ROOT is None, reason="needs the real data sets")
@pytest.mark.parametrize("number", range(SAMPLE))
def test_an_item_runs_at_the_smallest_scale(number: int, tmp_path: object) -> None:
    name = of_the_day(number)
    printed = said("reproduce", name, "--scale", LADDER[-1].name, "--jobs", "1", "--data-root", ROOT, "--out", tmp_path)
    assert "report: " in printed, name
