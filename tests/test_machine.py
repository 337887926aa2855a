"""What a process asks of the machine."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from sparseflow.core import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    x = torch.ones(2_500_000)  # 10 MB
    y = x + 1
    z = y * 2
    del y
    z = z - 1

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_stays():
    """Ten steps that allocate 40 MB each are 100,000 pages where memory is fetched anew."""
    faults = {
        what: int(subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, check=True).stdout)
        for what in ("keep", "leave")
    }
    assert faults["leave"] > 10_000
    assert faults["keep"] < 1_000
