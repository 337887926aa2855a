"""One product on several threads: each computes its own outputs, the kernels release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None


def run(call: Callable[..., None], fixed: tuple[Any, ...], work: int, least: int) -> None:
    """call(*fixed, part, parts) for each part, on as many threads as torch uses but with at least `least` work each."""
    global _pool
    threads = min(torch.get_num_threads(), max(1, work // least))
    if threads == 1:
        call(*fixed, 0, 1)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="sparseflow")
    waiting = [_pool.submit(call, *fixed, part, threads) for part in range(1, threads)]
    call(*fixed, 0, threads)
    for future in waiting:
        future.result()
