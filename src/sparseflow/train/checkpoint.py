"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import BadStore, join, replacing


def raw_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers as the model holds them (compact layers: the active values), not copied."""
    state: dict[str, Tensor] = dict(model.named_parameters())
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                state[join(prefix, name)] = buffer
    return {name: tensor.detach() for name, tensor in state.items()}


@torch.no_grad()
def load_raw_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a `raw_state` into a model of the same make."""
    for name, tensor in raw_state(model).items():
        tensor.copy_(state[name])


def misfit(own: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> str:
    """In what the names and shapes of a kept state differ from a model's own, in words; empty where it fits."""
    lacking, strange = sorted(own.keys() - kept.keys()), sorted(kept.keys() - own.keys())
    said = [f"it lacks {', '.join(lacking)}"] if lacking else []
    said += [f"the model has no {', '.join(strange)}"] if strange else []
    said += [
        f"{name} is {tuple(kept[name].shape)} there and {tuple(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in kept and kept[name].shape != tensor.shape
    ]
    return "; ".join(said)


def load_fitting(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a kept `state_dict` into a model.

    Args:
        what: whose state it is, for the error.

    Raises:
        BadStore: if it is not of such a model.
    """
    if wrong := misfit(model.state_dict(), state):
        raise BadStore(f"{what} {NOT_OF_IT}: {wrong}")
    model.load_state_dict(state)


NOT_OF_IT = (
    "is of another network than the model's code makes now (bring back the code that it was made with, or take another "
    "name for the model or another output folder)"
)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write beside, sync, rename: a reader meets the old file or the new one, whatever is killed meanwhile."""
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save(_alone(content), file)


def _alone(content: Any) -> Any:
    """The same content with tensors that are a part of a larger storage copied, since torch saves storages whole."""
    if isinstance(content, dict):
        return {key: _alone(value) for key, value in content.items()}
    if isinstance(content, Tensor) and content.untyped_storage().nbytes() > content.nbytes:
        return content.detach().clone()
    return content


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The content of a checkpoint, or None where it cannot be read."""
    try:
        with warnings.catch_warnings():  # torch muses about pickle protocols of files that are none of its own
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return content if isinstance(content, dict) else None


def sweep(folder: Path) -> None:
    """Remove what a process that was killed while writing left behind; for the folder's only user."""
    for aside in folder.glob("*.tmp"):
        aside.unlink(missing_ok=True)
