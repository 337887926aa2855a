"""What a run's bits depend on beside its specification."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from sparseflow.models import code_digest, is_imported
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


def code_of(model: str) -> str:
    """What a run's fingerprint says of the file in which a model of the user's own is written."""
    return f", code of {model} {code_digest(model)}" if is_imported(model) else ""
