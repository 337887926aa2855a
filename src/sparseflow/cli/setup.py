"""What commands that execute runs have in common: the folder, where runs happen, and what carries them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sparseflow.core import BadValue, cores
from sparseflow.study import Cluster, Executor, Pool, Surroundings


@dataclass(frozen=True)
class Workers:
    """Who is to carry out runs, as asked for on the command line.

    Attributes:
        jobs: at most; None for as many as there is room for.
        ray: address of a Ray cluster; None for processes of this machine.
        gpus_per_run: part of a GPU, on a cluster; None for a whole one where runs train on one.
    """

    jobs: int | None
    ray: str | None = None
    gpus_per_run: float | None = None

    def gpus(self, device: str) -> float:
        """Of a worker on a cluster.

        Raises:
            BadValue: if the options do not go together.
        """
        if self.ray is None:
            if self.gpus_per_run is not None:
                raise BadValue("--gpus-per-run is for a cluster; give --ray too")
            return 0.0
        if device == "cpu":
            if self.gpus_per_run is not None:
                raise BadValue("--gpus-per-run is for runs on a GPU; give --device cuda too")
            return 0.0
        if device != "cuda":
            raise BadValue(f"Ray says which GPU a worker gets; with --ray give --device cuda or cpu, not {device!r}")
        share = 1.0 if self.gpus_per_run is None else self.gpus_per_run
        if not 0.0 < share <= 1.0:
            raise BadValue(f"--gpus-per-run must be in (0, 1], a run trains on one GPU or a part of it; got {share:g}")
        return share


@contextmanager
def executor_for(workers: Workers, device: str, note: Callable[[str], None]) -> Iterator[Executor]:
    """What carries out runs, while inside; a cluster is left at the end."""
    gpus = workers.gpus(device)
    if workers.ray is None:
        yield Pool(workers.jobs or cores())
        return
    with Cluster(workers.ray, workers.jobs, gpus=gpus, note=note) as cluster:
        yield cluster


def surroundings_for(
    out: Path, data_root: str | None, device: str, checkpoint_every: float, *, keep: bool, elsewhere: bool = False
) -> Surroundings:
    """Raises BadValue for a device that this machine does not have, where runs do not happen `elsewhere`."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise BadValue(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if kind.type == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise BadValue(f"device {device!r}: torch finds no CUDA device here; use --device cpu")
    if kind.type not in ("cpu", "cuda"):
        raise BadValue(f"device must be cpu, cuda or cuda:N, got {device!r}")
    return Surroundings(data_root, out / "checkpoints", device, checkpoint_seconds=checkpoint_every, keep=keep)
