"""From masked layers to compact ones and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparseflow.core import BadValue, Masks, StandsForWeight, check_masks
from sparseflow.sparse.conv import CompactConv2d
from sparseflow.sparse.kernel import Pair
from sparseflow.sparse.layer import CompactLayer
from sparseflow.sparse.linear import CompactLinear
from sparseflow.sparse.norm import forget_batch_last, keep_batch_last

# These modules read `.weight` of their children instead of calling them.
_READS_CHILD_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class Conversion(NamedTuple):
    """What `compact` did: the model, the weights now compact, and those left masked with the reason of each."""

    model: nn.Module
    compacted: tuple[str, ...]
    left_masked: dict[str, str]


def compact(model: nn.Module, masks: Masks, only: Collection[str] | None = None) -> Conversion:
    """Replace masked layers by compact ones, in place; call it before the optimiser, DDP and compile.

    Only plain, untied, unparametrised `nn.Linear` and `nn.Conv2d` layers convert, and only where the parent does not
    read `.weight`. Batch normalisations learn to keep the compact layers' order of memory (`norm.keep_batch_last`).

    Args:
        masks: weight name -> bool mask.
        only: names of the weights to convert (those of other masks stay masked); all that can be by default.

    Raises:
        BadValue: for a mask that fits no weight, or a model that is itself the layer to replace.
    """
    check_masks(model, masks)
    done: list[str] = []
    left: dict[str, str] = {}
    for name, obstacle in obstacles(model, masks).items():
        reason = obstacle or ("masked by choice" if only is not None and name not in only else None)
        if reason:
            left[name] = reason
            continue
        prefix = name.rpartition(".")[0]
        if not prefix:
            raise BadValue("the model is itself the layer to convert; put it into an nn.Sequential")
        parent, _, child = prefix.rpartition(".")
        setattr(model.get_submodule(parent), child, _compacted(model.get_submodule(prefix), masks[name]))
        done.append(name)
    if done:
        keep_batch_last(model)
    return Conversion(model, tuple(done), left)


def obstacles(model: nn.Module, masks: Masks) -> dict[str, str | None]:
    """Weight name -> why its layer cannot be compact, None where it can."""
    places = model.named_modules(remove_duplicate=False)
    uses = Counter(id(p) for _, m in places for p in m.parameters(recurse=False))
    found: dict[str, str | None] = {}
    for name in masks:
        prefix, _, attribute = name.rpartition(".")
        parent = model.get_submodule(prefix.rpartition(".")[0])
        found[name] = _obstacle(model.get_submodule(prefix), parent, attribute, uses)
    return found


def _obstacle(layer: nn.Module, parent: nn.Module, attribute: str, uses: Counter[int]) -> str | None:
    if isinstance(layer, StandsForWeight):
        return "already compact"
    if isinstance(layer, parametrize.ParametrizationList):
        return "parametrised"
    if type(layer) not in (nn.Linear, nn.Conv2d) or attribute != "weight":
        return f"{type(layer).__name__}.{attribute} has no compact form"
    if isinstance(layer, nn.Conv2d) and (obstacle := _conv_obstacle(layer)):
        return obstacle
    if uses[id(layer.weight)] > 1:
        return "tied: used in several places"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return "has hooks, which a new layer would lack"
    if isinstance(parent, _READS_CHILD_WEIGHTS):
        return f"{type(parent).__name__} reads its weight"
    return None


def _conv_obstacle(conv: nn.Conv2d) -> str | None:
    if conv.groups != 1:
        return f"a convolution in {conv.groups} groups has no compact form"
    if conv.dilation != (1, 1):
        return f"a convolution of dilation {conv.dilation} has no compact form"
    if conv.padding_mode != "zeros":
        return f"a convolution with padding mode {conv.padding_mode!r} has no compact form"
    if conv.padding == "same" and any(size % 2 == 0 for size in conv.kernel_size):
        return "padding 'same' around an even kernel is uneven, which has no compact form"
    return None


def _compacted(layer: nn.Module, mask: torch.Tensor) -> CompactLayer:
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    weight = layer.weight
    device = mask.device if weight.is_meta else weight.device
    bias: nn.Parameter | None = layer.bias  # type: ignore[assignment]
    if bias is not None and bias.is_meta:
        bias = nn.Parameter(torch.zeros(bias.shape, dtype=bias.dtype, device=device))
    new: CompactLayer
    if isinstance(layer, nn.Linear):
        new = CompactLinear(mask, bias, dtype=weight.dtype, device=device)
    else:
        stride, padding = _pair(layer.stride), padding_of(layer)
        new = CompactConv2d(mask, bias, stride=stride, padding=padding, dtype=weight.dtype, device=device)
    if not weight.is_meta:
        new.set_active(weight.detach()[mask.to(device)])
    new.values.requires_grad_(weight.requires_grad)
    return new.train(layer.training)


def _pair(sizes: tuple[int, ...]) -> Pair:
    return sizes[0], sizes[1]


def padding_of(conv: nn.Conv2d) -> Pair:
    """(vertical, horizontal) zeros on either side, of a convolution that can be compact."""
    if conv.padding == "same":
        return conv.kernel_size[0] // 2, conv.kernel_size[1] // 2
    return (0, 0) if isinstance(conv.padding, str) else _pair(conv.padding)


def expand(model: nn.Module) -> nn.Module:
    """Replace every compact layer by the dense one it stands for, in place; masked weights are exact zeros."""
    for prefix, layer in list(model.named_modules()):
        if not isinstance(layer, CompactLayer):
            continue
        dense = layer.dense_weight()
        plain = _plain(layer)
        plain.weight = nn.Parameter(dense, requires_grad=layer.values.requires_grad)
        plain.bias = layer.bias
        parent, _, child = prefix.rpartition(".")
        setattr(model.get_submodule(parent), child, plain.train(layer.training))
    forget_batch_last(model)
    return model


def _plain(layer: CompactLayer) -> nn.Linear | nn.Conv2d:
    if isinstance(layer, CompactConv2d):
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
        return nn.Conv2d(*sizes, bias=False, device="meta")
    assert isinstance(layer, CompactLinear)
    return nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
