"""What a process asks of the machine."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from sparseflow.core import keep_freed_memory

def step(n):
    x = torch.ones(n)
    y = x + 1
    z = y * 2
    del y
    z = z - 1

keep_freed_memory()
faults = 0
for megabytes in (4, 6, 10, 15, 20, 30):
    for _ in range(10):
        step(megabytes * 250_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step(megabytes * 250_000)
    faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_stays():
    """30 steps allocate four blocks each. Without the call they fetch 310,000 pages or more in most processes (in some,
    by the heap's chance layout, hardly any)."""
    faults = int(subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True).stdout)
    assert faults < 30_000
