"""What `compare` and `train` have in common: the folder and where runs happen."""

from __future__ import annotations

from pathlib import Path

import torch

from sparseflow.core import BadValue
from sparseflow.study import Surroundings


def surroundings_for(
    out: Path, data_root: str | None, device: str, checkpoint_every: float, *, keep: bool
) -> Surroundings:
    """Raises BadValue for a device that this machine does not have."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise BadValue(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise BadValue(f"device {device!r}: torch finds no CUDA device here; use --device cpu")
    if kind.type not in ("cpu", "cuda"):
        raise BadValue(f"device must be cpu, cuda or cuda:N, got {device!r}")
    return Surroundings(data_root, out / "checkpoints", device, checkpoint_seconds=checkpoint_every, keep=keep)
