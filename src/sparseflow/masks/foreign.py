"""Masks made elsewhere: by `torch.nn.utils.prune`, or known only by the zeros they left in the weights."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from sparseflow.core import BadData, BadValue, weight_shapes
from sparseflow.masks.files import read_safetensors

Source = nn.Module | Mapping[str, Tensor]

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints commonly keep the state_dict."""


def from_torch_prune(source: Source) -> dict[str, Tensor]:
    """The masks of a model pruned by `torch.nn.utils.prune`, or of its state_dict: those of `fc.weight_mask`.

    Returns:
        weight name as it is after `prune.remove` (`fc.weight`) -> bool mask.

    Raises:
        BadValue: for a source without such masks, a mask of a bias (only weights of two dimensions or more have masks
            here), or values other than 0 and 1.
    """
    state = _state(source)
    masks = {}
    for key, value in state.items():
        name = key.removesuffix("_mask")
        if name == key or f"{name}_orig" not in state:
            continue
        if value.dim() < 2:
            raise BadValue(
                f"{key} masks a parameter of one dimension; only weights of two or more have masks here: "
                f"prune.remove it from the module first"
            )
        if not ((value == 0) | (value == 1)).all():
            raise BadValue(f"{key} has values other than 0 and 1")
        masks[name] = value.bool()
    if not masks:
        raise BadValue("nothing here is pruned by torch.nn.utils.prune: no NAME_orig stands beside a NAME_mask")
    return masks


def from_zeros(source: Source) -> dict[str, Tensor]:
    """The masks that zeros stand for: active where a weight is not 0; a weight without any zero is dense, without mask.

    Weights are a model's weights, and of a state_dict its floating-point tensors of two dimensions or more. A weight
    that is 0 by chance or by design, such as the padding row of an embedding, cannot be told from a pruned one.

    Raises:
        BadValue: where no weight has a zero.
    """
    state = _state(source)
    names = weight_shapes(_unwrapped(source)) if isinstance(source, nn.Module) else state
    masks = {}
    for name in names:
        value = state[name]
        if value.dim() < 2 or not value.is_floating_point():
            continue
        active = value != 0
        if not active.all():
            masks[name] = active
    if not masks:
        raise BadValue("no weight has a zero: nothing here is sparse")
    return masks


def read_state(path: str | Path) -> dict[str, Any]:
    """The state_dict in a .safetensors file or in a file of `torch.save`, also one level down in a checkpoint.

    Raises:
        BadData: for a file that is missing, damaged, holds more than tensors, or no state_dict.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _bare(read_safetensors(path)[0])
    if not path.is_file():
        raise BadData(f"no file {str(path)!r}")
    try:
        with warnings.catch_warnings():  # torch muses about pickle protocols of files that are none of its own
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make torch's unpickler raise anything
        if isinstance(error, pickle.UnpicklingError) and is_zipfile(path):
            raise BadData(f"{path}: holds other objects than tensors; save model.state_dict() instead") from None
        raise BadData(f"{path}: no state_dict of torch.save, or damaged") from None
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise BadData(f"{path}: holds no state_dict (a mapping from names to tensors)")
    return _bare({name: value for name, value in content.items() if isinstance(value, Tensor)})


def imported(source: Source | str | Path) -> dict[str, Tensor]:
    """The masks of a model, a state_dict or its file: of `torch.nn.utils.prune` if it has any, else of zeros.

    Raises:
        BadData: for a file without a state_dict.
        BadValue: where nothing is sparse.
    """
    state = read_state(source) if isinstance(source, str | Path) else _state(source)
    pruned = any(name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in state for name in state)
    if pruned:
        return from_torch_prune(state)
    return from_zeros(source if isinstance(source, nn.Module) else state)


def _state(source: Source) -> dict[str, Tensor]:
    return dict(_unwrapped(source).state_dict()) if isinstance(source, nn.Module) else _bare(dict(source))


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model that DataParallel, DistributedDataParallel or torch.compile wrap."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _bare(state: dict[str, Any]) -> dict[str, Any]:
    """The same under the names of the bare model."""
    for prefix in PREFIXES * 2:  # either may be around the other
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
