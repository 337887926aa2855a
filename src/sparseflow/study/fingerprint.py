"""What a run's bits depend on beside its specification."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from sparseflow.sparse import kernels


def fingerprint(device: str, threads: int) -> str:
    """This package, torch build, CPU, sparse kernels, device and threads; equal fingerprints promise equal bits."""
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    return (
        f"sparseflow {version('sparseflow')}, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, "
        f"kernels {kernels()}, "
        f"{where}, {threads} thread{'s' if threads != 1 else ''}"
    )
