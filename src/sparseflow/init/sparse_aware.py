"""Initialisations of a masked layer: what standard deviation each active weight is drawn with (004 sec. 3.1, A.1)."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn

from sparseflow.core import Catalog, Masks, set_active, stand_ins, stream, weight_shapes, weight_values
from sparseflow.init.draw import Scheme

Deviation = float | Tensor
"""Of all active weights of a layer; or of each, (active,), in the row-major order of the mask."""

initialisations: Catalog[Callable[[Tensor, Scheme], Deviation]] = Catalog("initialisation")
"""name -> (mask, scheme) -> deviation."""


@initialisations.add("dense", cite="He et al. 2015, arXiv:1502.01852; Glorot & Bengio 2010")
def dense(mask: Tensor, scheme: Scheme) -> Deviation:
    """What the dense layer is drawn with ("masked dense"): the signal shrinks as weights are masked."""
    return scheme.deviation(mask.shape)


@initialisations.add("liu", cite="Liu et al. 2019, arXiv:1810.05270; 004 sec. 3.1")
def liu(mask: Tensor, scheme: Scheme) -> Deviation:
    """One scale for the layer: the dense deviation divided by the root of the layer's density."""
    return scheme.deviation(mask.shape) / sqrt(max(1, int(mask.count_nonzero())) / mask.numel())


@initialisations.add("fans", cite="Evci et al. 2022, arXiv:2010.03533, eq. 1, 2")
def fans(mask: Tensor, scheme: Scheme) -> Deviation:
    """Var = c / u with u counted from the mask, for each neuron its own."""
    fan_in, fan_out = fan_counts(mask)
    into = fan_in.view(-1, *[1] * (mask.dim() - 1)).expand(mask.shape)[mask]
    out_of = fan_out.view(1, -1, *[1] * (mask.dim() - 2)).expand(mask.shape)[mask]
    return (scheme.numerator / scheme.of_fans(into, out_of)).sqrt()


def fan_counts(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(fan-in of each output (out,), fan-out of each input (in,)), float64: active weights of (out, in, *kernel).

    Kernel positions count; a neuron with none counts as 1.
    """
    counted = mask.to(torch.float64)
    into = counted.flatten(1).sum(1)
    out_of = counted.transpose(0, 1).flatten(1).sum(1)
    return into.clamp(min=1.0), out_of.clamp(min=1.0)


def draw_(model: nn.Module, masks: Masks, method: str = "fans", scheme: Scheme | None = None, *, seed: int = 0) -> None:
    """Draw every weight of the model anew for its masks; masked weights become exactly 0, dense layers stay dense.

    A layer's draw depends on (seed, its name, its shape), its mask and the method alone, so masked and compact
    execution start from the same values.

    Args:
        masks: of layers in masked execution; compact layers know their own.
        method: name in `initialisations`.
        scheme: He normal with fan-in by default.

    Raises:
        UnknownName: for a method that is not in the catalog.
    """
    scheme, deviation = scheme or Scheme(), initialisations[method]
    carriers, compact = weight_values(model), stand_ins(model)
    for name, shape in weight_shapes(model).items():
        layer = compact.get(name)
        mask = layer.active_mask() if layer is not None else masks.get(name)
        if mask is None:
            mask = torch.ones(shape, dtype=torch.bool)
        mask = mask.cpu()  # the draw, and so the start of a run, does not depend on the device
        generator = stream(seed, "init", name, *shape)
        drawn = scheme.draw(deviation(mask, scheme), int(mask.count_nonzero()), generator, carriers[name].dtype)
        set_active(model, name, drawn, mask)


def from_fans_(model: nn.Module, masks: Masks, scheme: Scheme | None = None, *, seed: int = 0) -> None:
    """Draw the weights with the variance that each neuron's own fans ask for (004 eq. 1, 2); see `draw_`."""
    draw_(model, masks, "fans", scheme, seed=seed)
