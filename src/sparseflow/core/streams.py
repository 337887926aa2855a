"""Named random streams: every draw is a function of a seed and a name, never of what was drawn before it.

Two draws with different names never share numbers, and a run that is killed and resumed draws what an unbroken run
would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, *name: str | int) -> int:
    """The 63-bit seed that belongs to (seed, name): SHA-256 of both, so that near seeds give unrelated streams."""
    text = "\x1f".join([str(int(seed)), *(str(part) for part in name)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *name: str | int) -> torch.Generator:
    """A fresh CPU generator for the named stream, e.g. `stream(seed, "data", epoch)`."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


@contextmanager
def global_stream(seed: int, *name: str | int) -> Iterator[None]:
    """Inside, torch's global generators (CPU and the current CUDA devices) are the named stream; then as before.

    For draws that cannot take a generator, such as `torch.nn.functional.dropout`.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: where CUDA never starts, it queues a call with its stack trace every time.
        torch.default_generator.manual_seed(stream_seed(seed, *name))
        if devices:
            torch.cuda.manual_seed_all(stream_seed(seed, *name))
        yield
