"""The network of a finished run, as it was kept or as it began, with the data that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparseflow.core import (
    BadData,
    BadStore,
    Batch,
    SparseflowError,
    active_counts,
    state_digest,
    stream,
    weight_shapes,
)
from sparseflow.data import Prepared, stratified
from sparseflow.models import materialise
from sparseflow.sparse import expand
from sparseflow.study.build import build, outline
from sparseflow.study.finished import Finished
from sparseflow.study.run import DataCache, source_for
from sparseflow.study.surroundings import Surroundings
from sparseflow.study.tweaks import rescale_start
from sparseflow.train import checkpoint

Which = Literal["train", "test"]

BATCH = 100
"""Examples in a batch: small ones fit a processor's cache, which curvature gains much by."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A dense model with the masks of its sparse layers, all on the device that the data are on.

    Attributes:
        masks: weight name -> bool; a layer without one is dense.
        data: what it was trained on, and is tested on.
    """

    run: Finished
    model: nn.Module
    masks: Mapping[str, Tensor]
    data: Prepared

    @property
    def label(self) -> str:
        return self.run.label

    @property
    def active(self) -> int:
        """Active weights."""
        return sum(active_counts(self.model, self.masks).values())

    @property
    def density(self) -> float:
        """Active weights over weights."""
        return self.active / sum(shape.numel() for shape in weight_shapes(self.model).values())

    @property
    def identity(self) -> dict[str, str]:
        """Names its values, its masks and its data: equal exactly where measurements must be."""
        masks = {f"mask of {name}": mask for name, mask in self.masks.items()}
        values = state_digest({**self.model.state_dict(), **masks})[:16]
        return {"run": self.run.spec.name, "values": values, "data": self.data.digest}

    def sample(self, which: Which, examples: int | None = None, batch_size: int = BATCH) -> list[Batch]:
        """Normalised examples: all, or a stratified sample that does not depend on the run.

        Of the training split these are the examples that probes measure on along a training.

        Args:
            examples: at most; all where there are fewer, and for None.
        """
        split = self.data.train if which == "train" else self.data.test
        count = len(split) if examples is None else min(examples, len(split))
        draw = stream(0, "probe")
        taken = stratified(split.y, count, draw)
        shuffled = taken[torch.randperm(count, generator=draw)]  # a batch of one class would have odd statistics
        return [self.data.batch(split, part) for part in shuffled.tensor_split(-(-count // batch_size))]


def reload(run: Finished, cache: DataCache, device: str = "cpu") -> Loaded:
    """The network of a run at a moment of its training.

    The start is drawn again from the specification; later moments are read from what the run kept.

    Args:
        cache: on the same device.

    Raises:
        SparseflowError: if the network was not kept, or cannot be made a plain one.
        BadData: if the data are not those that it was trained on.
        BadStore: for a damaged file.
    """
    if run.spec.tost is not None and run.spec.tost.ghosts and run.spec.ghosts_end == "never":
        raise SparseflowError(f"{run.label} keeps its ghosts (tost.until = never), and analyses are of plain networks")
    data = cache.prepared(run.spec)
    if data.digest != run.data_digest:
        raise BadData(
            f"{run.label} was trained on other data than {run.spec.data.name!r} now is (digest {run.data_digest}, now "
            f"{data.digest}); give --data-root the folder of those"
        )
    made = _started(run, data, device) if run.at == "start" else _kept(run, data, device)
    made.model.eval()
    return made


def _started(run: Finished, data: Prepared, device: str) -> Loaded:
    spec, where = run.spec, Surroundings(checkpoints=run.folder / "checkpoints", device=device)
    network = build(spec, data.input_shape, data.classes, device, source_for(spec, data, where))
    rescale_start(spec, network, data, None)
    masks = {name: network.masks[name].to(device) for name in network.execution}
    model = expand(network.model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).masked_fill_(~mask, 0.0)  # of masked layers training does it first
    return Loaded(run, model, masks, data)


def _kept(run: Finished, data: Prepared, device: str) -> Loaded:
    spec, where = run.spec, Surroundings(checkpoints=run.folder / "checkpoints")
    end = _read(
        where.final_path(spec.name),
        device,
        f"{run.label}: the network was not kept; `compare` with --keep-weights keeps it, and makes finished runs again",
    )
    state = end["state_dict"]
    if run.at != "final":
        if spec.rewire is not None or spec.mask.gradual is not None:
            raise SparseflowError(f"{run.label}: the masks of this run change, and those of that step were not kept")
        early = f"{run.label}: the weights of that step were not kept: a study keeps those that others go back to"
        state = _read(where.rewind_path(spec.name, int(run.at)), device, early)["state_dict"]
    model = outline(spec, data.input_shape, data.classes)
    materialise(model, device, getattr(torch, spec.train.dtype))
    checkpoint.load_fitting(model, state, f"{run.label}: the kept network")
    return Loaded(run, model, {name: mask.to(device) for name, mask in end["masks"].items()}, data)


def _read(path: Path | None, device: str, missing: str) -> dict[str, Any]:
    if path is None or not path.is_file():
        raise SparseflowError(missing)
    content = checkpoint.load(path, device)
    if content is None:
        raise BadStore(f"{path} is damaged; remove it, and the same study with --keep-weights makes it again")
    return content
