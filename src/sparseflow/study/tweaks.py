"""ToST's tweaks applied to a run's network: the start rescaled, ghosts made, their removal noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sparseflow.core import BadSpec, BadValue, Batch, Metric, stream
from sparseflow.data import Prepared
from sparseflow.init import rescale_
from sparseflow.study.build import Network, plan_for
from sparseflow.study.spec import RunSpec
from sparseflow.tost import Ghosts, ghost_neurons_, ghost_skips_
from sparseflow.train import checkpoint

PROBE = 128
"""Training examples on which the largest change of a logit by the removal of ghosts is measured."""


@dataclass(frozen=True)
class _Passes:
    """The training examples in batches, again and again; each time through in the same random order."""

    data: Prepared
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.data.train), generator=stream(self.seed, "rescale"))
        for part in order.split(self.batch_size):
            if len(part) > 1:
                yield self.data.batch(self.data.train, part)


def rescale_start(spec: RunSpec, network: Network, data: Prepared, keep_at: Path | None) -> None:
    """Rescale the drawn weights as the run asks for; a run that was cut finds them where it kept them.

    Raises:
        BadSpec: if the network or the data cannot be rescaled by.
    """
    how = spec.tost.rescale if spec.tost is not None else None
    if how is None:
        return
    kept = checkpoint.load(keep_at, data.device) if keep_at is not None and keep_at.is_file() else None
    if kept is not None and kept["run"] == spec.name and kept["data"] == data.digest:
        checkpoint.load_raw_state(network.model, kept["model"])
        return
    try:
        rescale_(
            network.model,
            {name: mask for name, mask in network.masks.items() if network.execution[name] == "masked"},
            plan_for(spec).loss,
            _Passes(data, spec.train.batch_size, spec.seed),
            lr=spec.optimizer.lr,
            iterations=how.iterations,
            gamma=how.gamma,
            scale_lr=how.scale_lr,
            bound=how.bound,
            seed=spec.seed,
        )
    except BadValue as error:
        raise BadSpec([f"tost.rescale: {error}"]) from None
    if keep_at is not None:
        model = checkpoint.raw_state(network.model)
        checkpoint.save(keep_at, {"run": spec.name, "data": data.digest, "model": model})


def ghosts_for(spec: RunSpec, model: nn.Module, data: Prepared) -> tuple[Ghosts, ...]:
    """The ghosts that a run asks for, put into its model; make the optimiser after them.

    Raises:
        BadSpec: if the model has no place for them.
    """
    tost, end = spec.tost, spec.ghosts_end
    if tost is None or not tost.ghosts:
        return ()
    fade = tost.fade(end, plan_for(spec).batches_per_epoch(len(data.train)), spec.train.epochs)
    probe = data.batch(data.train, torch.arange(min(PROBE, len(data.train))))[0]
    made: tuple[Ghosts, ...] = ()
    try:
        if tost.neurons:
            made += (ghost_neurons_(model, fade, beta_max=tost.beta_max, example=data.example(), probe=probe),)
        if tost.skips:
            skips = ghost_skips_(model, fade, data.example(), shortcut=tost.shortcut, seed=spec.seed, probe=probe)
            made += (skips,)
    except BadValue as error:
        raise BadSpec([f"tost: {error} (tost.{'skips' if made or not tost.neurons else 'neurons'} = false)"]) from None
    return made


def removals(ghosts: Sequence[Ghosts], note: Callable[[dict[Metric, float]], None]) -> dict[int, Callable[[], None]]:
    """Step -> noting by how much the removal of ghosts after it changed a logit, at most."""

    def write() -> None:
        name = {"ghost neurons": "removal_of_neurons", "ghost skips": "removal_of_skips"}
        note({Metric(name[one.kind]): one.largest_change for one in ghosts if one.largest_change is not None})

    return {one.fade.end: write for one in ghosts if one.fade.end is not None}
