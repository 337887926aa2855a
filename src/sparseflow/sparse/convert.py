"""From masked layers to compact ones and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparseflow.core import BadValue, Masks, StandsForWeight, check_masks
from sparseflow.sparse.linear import CompactLinear

# These modules read `.weight` of their children instead of calling them.
_READS_CHILD_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class Conversion(NamedTuple):
    """What `compact` did: the model, the weights now compact, and those left masked with the reason of each."""

    model: nn.Module
    compacted: tuple[str, ...]
    left_masked: dict[str, str]


def compact(model: nn.Module, masks: Masks, only: Collection[str] | None = None) -> Conversion:
    """Replace masked linear layers by compact ones, in place; call it before the optimiser, DDP and compile.

    Only plain, untied, unparametrised `nn.Linear` layers convert, and only where the parent does not read `.weight`.

    Args:
        masks: weight name -> bool mask.
        only: names of the weights to convert (those of other masks stay masked); all that can be by default.

    Raises:
        BadValue: for a mask that fits no weight, or a model that is itself the layer to replace.
    """
    check_masks(model, masks)
    done: list[str] = []
    left: dict[str, str] = {}
    places = model.named_modules(remove_duplicate=False)
    uses = Counter(id(p) for _, m in places for p in m.parameters(recurse=False))
    for name, mask in masks.items():
        prefix, _, attribute = name.rpartition(".")
        layer = model.get_submodule(prefix)
        parent = model.get_submodule(prefix.rpartition(".")[0])
        reason = _obstacle(layer, parent, attribute, uses)
        if only is not None and name not in only:
            reason = reason or "masked by choice"
        if reason:
            left[name] = reason
            continue
        if not prefix:
            raise BadValue("the model is itself the layer to convert; put it into an nn.Sequential")
        setattr(parent, prefix.rpartition(".")[2], _compacted(layer, mask))
        done.append(name)
    return Conversion(model, tuple(done), left)


def _obstacle(layer: nn.Module, parent: nn.Module, attribute: str, uses: Counter[int]) -> str | None:
    if isinstance(layer, StandsForWeight):
        return "already compact"
    if isinstance(layer, parametrize.ParametrizationList):
        return "parametrised"
    if type(layer) is not nn.Linear or attribute != "weight":
        return f"{type(layer).__name__}.{attribute} has no compact form"
    if uses[id(layer.weight)] > 1:
        return "tied: used in several places"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return "has hooks, which a new layer would lack"
    if isinstance(parent, _READS_CHILD_WEIGHTS):
        return f"{type(parent).__name__} reads its weight"
    return None


def _compacted(layer: nn.Module, mask: torch.Tensor) -> CompactLinear:
    assert isinstance(layer, nn.Linear)
    weight = layer.weight
    device = mask.device if weight.is_meta else weight.device
    bias = layer.bias
    if bias is not None and bias.is_meta:
        bias = nn.Parameter(torch.zeros(bias.shape, dtype=bias.dtype, device=device))
    new = CompactLinear(mask, bias, dtype=weight.dtype, device=device)
    if not weight.is_meta:
        new.set_active(weight.detach()[mask.to(device)])
    new.values.requires_grad_(weight.requires_grad)
    return new.train(layer.training)


def expand(model: nn.Module) -> nn.Module:
    """Replace every compact layer by the `nn.Linear` it stands for, in place; masked weights are exact zeros."""
    for prefix, layer in list(model.named_modules()):
        if not isinstance(layer, CompactLinear):
            continue
        dense = layer.dense_weight()
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta", dtype=dense.dtype)
        plain.weight = nn.Parameter(dense, requires_grad=layer.values.requires_grad)
        plain.bias = layer.bias  # type: ignore[assignment]
        parent, _, child = prefix.rpartition(".")
        setattr(model.get_submodule(parent), child, plain.train(layer.training))
    return model
