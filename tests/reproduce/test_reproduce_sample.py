"""Every item runs at the smallest scale; two of them, others every day, are tried here."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import islice

import pytest

from commands import said
from real_data import real_data_root
from sparseflow.reproduce.experiment import experiment
from sparseflow.reproduce.items import items
from sparseflow.reproduce.scale import LADDER
from sparseflow.reproduce.works import counted

SAMPLE = 2
SMALLEST = LADDER[-1]
HEAVY = 2_000
"""GFLOP from which an item takes minutes even there (some hundred residual networks); those are tried by hand."""
ROOT = real_data_root()


def of_the_day(number: int) -> str:
    """One of a stretch of items that moves on with the date; all have had their turn after 76 days."""
    names = list(items())
    start = SAMPLE * datetime.now(timezone.utc).toordinal() % len(names)
    light = (name for name in names[start:] + names[:start] if counted(experiment(name), SMALLEST).gflops < HEAVY)
    return next(islice(light, number, None))


@pytest.mark.slow
@pytest.mark.skipif(ROOT is None, reason="needs the real data sets")
@pytest.mark.parametrize("number", range(SAMPLE))
def test_an_item_runs_at_the_smallest_scale(number: int, tmp_path: object) -> None:
    name = of_the_day(number)
    printed = said("reproduce", name, "--scale", SMALLEST.name, "--jobs", "1", "--data-root", ROOT, "--out", tmp_path)
    assert "report: " in printed, name
