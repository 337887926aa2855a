"""Where masks come from: what is written beside them, so that a file can be judged and made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from sparseflow.core import BadData, Masks, Shapes, weight_shapes
from sparseflow.masks.budget import Density

FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """How masks were made; what is not known is empty.

    Attributes:
        model: the model's name: of the catalog, an import path, or its class.
        weights: weight name -> shape of every weight of that model, masked or not, in its order.
        criterion, budget, density, rounds, seed, options: as given to `prune`.
        data, data_digest: what was scored on.
        made_with: versions of sparseflow and torch.
        date: UTC, ISO 8601.
        recipe: whatever its maker needs to build the model again.
    """

    model: str = ""
    weights: Shapes = field(default_factory=dict)
    criterion: str = ""
    budget: str = ""
    density: Density | None = None
    rounds: int | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    data_digest: str = ""
    made_with: str = ""
    date: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, *, name: str = "", **facts: Any) -> Provenance:
        """Of masks made for `model` now: its class (or `name`), its weights, the versions and the time; and `facts`."""
        kind = type(model)
        return cls(
            model=name or f"{kind.__module__}.{kind.__qualname__}",
            weights=weight_shapes(model),
            made_with=f"sparseflow {version('sparseflow')}, torch {torch.__version__}",
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **facts,
        )

    @property
    def weights_digest(self) -> str:
        """16 hex digits of the model's weight names and shapes in order; "" where they are not known."""
        if not self.weights:
            return ""
        text = json.dumps([[name, list(shape)] for name, shape in self.weights.items()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Raises TypeError for options or a recipe that JSON does not know."""
        return json.dumps({"format": FORMAT, **asdict(self), "weights_digest": self.weights_digest})


def read_provenance(text: str) -> Provenance:
    """The inverse of `Provenance.to_json`.

    Raises:
        BadData: for a text that is nothing of the kind, or of a later format.
    """
    try:
        content = json.loads(text)
        written = content.pop("format")
        if written != FORMAT:
            raise BadData(f"its provenance has format {written}, this version reads {FORMAT}; update sparseflow")
        digest = content.pop("weights_digest")
        content["weights"] = {name: torch.Size(shape) for name, shape in content["weights"].items()}
        unknown = content.keys() - {f.name for f in fields(Provenance)}
        found = Provenance(**content)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadData("its provenance is damaged") from None
    if unknown or found.weights_digest != digest:
        raise BadData("its provenance is damaged")
    return found


def misfits(found: Shapes, wanted: Shapes) -> list[str]:
    """In words, every weight that only one of the two has, and every one whose shapes differ."""
    words = [f"{name} {_by(shape)} is not in the model" for name, shape in found.items() if name not in wanted]
    words += [
        f"{name} is {_by(found[name])} in the file and {_by(shape)} in the model"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    return words + [f"{name} {_by(shape)} is not in the file" for name, shape in wanted.items() if name not in found]


def shapes_of(masks: Masks) -> Shapes:
    return {name: mask.shape for name, mask in masks.items()}


def _by(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
