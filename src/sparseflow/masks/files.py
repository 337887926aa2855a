"""Mask files: safetensors of bool tensors that any reader opens, with their provenance as metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from sparseflow.core import BadData, BadValue, Masks, replacing, state_digest, weight_shapes
from sparseflow.masks.provenance import Provenance, misfits, read_provenance, shapes_of

KEY = "sparseflow.masks"
"""In the metadata; one key alone, since safetensors writes several in no fixed order."""


def save(path: str | Path, masks: Masks, provenance: Provenance | None = None) -> None:
    """Write masks, whole or not at all.

    Args:
        masks: parameter name -> bool tensor.
        provenance: `Provenance.of(model, criterion=..., ...)`; without one the file holds the masks alone, and loading
            it against a model can check no more than them.

    Raises:
        BadValue: for masks that are not bool tensors or not of the provenance's model, options that JSON does not
            know, a place that cannot be written.
    """
    path, provenance = Path(path), provenance or Provenance()
    if not masks:
        raise BadValue("there are no masks to save")
    for name, mask in masks.items():
        if mask.dtype is not torch.bool:
            raise BadValue(f"mask {name!r} must be a bool tensor, got {mask.dtype}")
    if provenance.weights and (wrong := _misfits_of_masks(masks, provenance)):
        raise BadValue(f"the masks are not of {provenance.model}: {_first(wrong)}")
    stored = {name: mask.cpu().contiguous().clone() for name, mask in masks.items()}
    try:
        beside = {"provenance": provenance.to_json(), "order": list(stored), "digest": state_digest(stored)}
        text = json.dumps(beside)
    except TypeError as error:
        raise BadValue(f"the provenance cannot be written as JSON: {error}") from None
    content = to_bytes(stored, {KEY: text})
    try:
        with replacing(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise BadValue(f"cannot write {path}: {error.strerror}") from None


def load(path: str | Path, model: nn.Module | None = None) -> tuple[dict[str, Tensor], Provenance]:
    """The masks of a file, on the CPU in the model's order, and where they come from.

    Args:
        model: whose masks they must be: a file that says which weights its model had must name exactly the weights of
            this one, in the same shapes; of another file, every mask must have its weight. To carry masks over to
            another network on purpose, load without a model and pick.

    Raises:
        BadData: for a file that is missing, damaged, no mask file, or of another model (names the first differences
            and the model it was made for).
    """
    path = Path(path)
    stored, metadata = read_safetensors(path)
    for name, mask in stored.items():
        if mask.dtype is not torch.bool:
            raise BadData(
                f"{path}: {name!r} is {mask.dtype}, not bool: this is no mask file (masks.from_zeros makes masks of a "
                "state_dict with zeros)"
            )
    if not stored:
        raise BadData(f"{path}: holds no masks")
    masks, provenance = stored, Provenance()
    if KEY in metadata:
        masks, provenance = _with_provenance(path, stored, metadata[KEY])
    if model is not None:
        _check_model(path, masks, provenance, model)
    return masks, provenance


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata.

    Raises:
        BadData: for a file that is missing, damaged or something else.
    """
    if not path.is_file():
        raise BadData(f"no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadData(f"{path}: not a safetensors file, or damaged ({error})") from None


def _with_provenance(path: Path, stored: dict[str, Tensor], text: str) -> tuple[dict[str, Tensor], Provenance]:
    try:
        content = json.loads(text)
        masks = {name: stored[name] for name in content["order"]}
        digest, words = content["digest"], content["provenance"]
    except (ValueError, KeyError, TypeError):
        raise BadData(f"{path}: its metadata is damaged") from None
    if len(masks) != len(stored) or digest != state_digest(stored):
        raise BadData(f"{path}: the masks are not those that were written; the file was changed or damaged")
    try:
        return masks, read_provenance(words)
    except BadData as error:
        raise BadData(f"{path}: {error}") from None


def _check_model(path: Path, masks: Masks, provenance: Provenance, model: nn.Module) -> None:
    shapes = weight_shapes(model)
    if provenance.weights:
        wrong = misfits(provenance.weights, shapes)
    else:
        wrong = misfits(shapes_of(masks), {name: shape for name, shape in shapes.items() if name in masks})
    if wrong:
        made_for = f" (it was made for {provenance.model})" if provenance.model else ""
        raise BadData(f"{path}: masks of another model{made_for}: {_first(wrong)}")


def _misfits_of_masks(masks: Masks, provenance: Provenance) -> list[str]:
    wanted = {name: shape for name, shape in provenance.weights.items() if name in masks}
    return misfits(shapes_of(masks), wanted)


def _first(words: list[str], shown: int = 3) -> str:
    rest = len(words) - shown
    return "; ".join(words[:shown]) + (f"; and {rest} more" if rest > 0 else "")
