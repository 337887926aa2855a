"""Masks as a report shows them: layer by layer, with the effective part where the model could be followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparseflow.core import Masks
from sparseflow.masks import Paths, Provenance


@dataclass(frozen=True)
class MaskSet:
    """Masks with all that is known of them.

    Attributes:
        label: what the report calls them, such as the file's name.
        paths: of the model with these masks; None where it is not at hand.
        why_no_paths: in words, then.
    """

    label: str
    masks: Masks
    provenance: Provenance
    paths: Paths | None = None
    why_no_paths: str = ""

    @property
    def layers(self) -> list[LayerRow]:
        """One row for every weight of the model, in its order; for the masked ones alone where the rest is unknown."""
        shapes = self.provenance.weights or {name: mask.shape for name, mask in self.masks.items()}
        followed = {layer.name: layer for layer in self.paths.layers} if self.paths else {}
        rows = []
        for name, shape in {**shapes, **{n: m.shape for n, m in self.masks.items()}}.items():
            masked = name in self.masks
            active = int(self.masks[name].count_nonzero()) if masked else shape.numel()
            at = followed.get(name)
            extra = (at.effective, at.units, at.dead, at.unreachable) if at else (None,) * 4
            rows.append(LayerRow(name, shape, masked, active, *extra))
        return rows


@dataclass(frozen=True)
class LayerRow:
    """A weight; None is not known."""

    name: str
    shape: torch.Size
    masked: bool
    active: int
    effective: int | None = None
    units: int | None = None
    dead: int | None = None
    unreachable: int | None = None

    @property
    def label(self) -> str:
        return self.name.removesuffix(".weight")

    @property
    def weights(self) -> int:
        return self.shape.numel()

    @property
    def density(self) -> float:
        return self.active / self.weights

    @property
    def effective_density(self) -> float | None:
        return None if self.effective is None else self.effective / self.weights

    @property
    def dense(self) -> bool:
        return self.active == self.weights

    @property
    def collapsed(self) -> bool:
        """Nothing passes, as far as is known."""
        return not (self.active if self.effective is None else self.effective)

    @property
    def remark(self) -> str:
        if self.collapsed:
            return "collapsed"
        return ("dense" if self.masked else "dense, no mask") if self.dense else ""

    def cells(self) -> list[str]:
        """Shape, weights, active, density, effective, effective density, dead, unreachable, remark: as text."""
        return [
            "x".join(map(str, self.shape)),
            f"{self.weights:,}",
            f"{self.active:,}",
            f"{self.density:.4g}",
            *_effective_cells(self.effective, self.effective_density),
            "–" if self.dead is None else f"{self.dead:,} of {self.units:,}",
            "–" if self.unreachable is None else f"{self.unreachable:,}",
            self.remark,
        ]


LAYER_HEADER = (
    "shape", "weights", "active", "density", "effective", "eff. density", "dead", "unreachable", "remark",
)  # fmt: skip


def total_cells(rows: Sequence[LayerRow]) -> list[str]:
    """The same of all rows together."""
    weights, active = sum(row.weights for row in rows), sum(row.active for row in rows)
    known = [row.effective for row in rows if row.effective is not None]
    effective = sum(known) if len(known) == len(rows) else None
    density = None if effective is None else effective / weights
    sums = [
        [n for n in column if n is not None] for column in zip(*((r.dead, r.unreachable) for r in rows), strict=True)
    ]
    collapsed = sum(row.collapsed for row in rows)
    return [
        "",
        f"{weights:,}",
        f"{active:,}",
        f"{active / weights:.4g}",
        *_effective_cells(effective, density),
        *(f"{sum(numbers):,}" if numbers else "–" for numbers in sums),
        f"{collapsed} collapsed" if collapsed else "",
    ]


def _effective_cells(effective: int | None, density: float | None) -> list[str]:
    return ["–" if effective is None else f"{effective:,}", "–" if density is None else f"{density:.4g}"]
