"""Ghost skips: a 3x3 convolution's input joins its output for a while (003 sec. 2.2, Fig. 4, "GSk")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from sparseflow.core import BadValue, stream
from sparseflow.init import Scheme
from sparseflow.sparse import CompactConv2d
from sparseflow.tost.fade import Fade
from sparseflow.tost.ghosts import Ghosts, Inputs, scalar
from sparseflow.tost.trace import Passed, Trace, is_3x3

SHORTCUTS = ("pool", "conv")


def pooled_identity(x: Tensor, shape: torch.Size) -> Tensor:
    """x as it is where the shape is; else means over the positions that fall together, and channels of zeros.

    Half of the zeros come first and half last, as in the option A of He et al. 2015; channels that are too many are
    cut off in the same way. No parameters.

    Args:
        x: (..., channels, height, width).
        shape: (..., channels', height', width').
    """
    if x.shape[-2:] != shape[-2:]:
        x = F.adaptive_avg_pool2d(x, (shape[-2], shape[-1]))
    added = shape[-3] - x.shape[-3]
    return F.pad(x, (0, 0, 0, 0, added // 2, added - added // 2)) if added else x


class Skip:
    """The hooks on one convolution and its norm; they stand in the model and are copied with it.

    What is added to the norm's output is alpha times the convolution's input. Without a norm it is added to the
    convolution's own output.
    """

    def __init__(self, convolution: nn.Module, norm: nn.Module | None) -> None:
        self.convolution, self.alpha = convolution, scalar()
        self._input: Tensor | None = None
        if norm is None:
            self._handles: list[RemovableHandle] = [convolution.register_forward_hook(self._add)]
        else:
            self._handles = [
                convolution.register_forward_hook(self._keep),
                norm.register_forward_hook(self._add_kept),
            ]

    def _add(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self._ghost(args[0], output)

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._input = args[0]

    def _add_kept(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        x, self._input = self._input, None
        return None if x is None else output + self._ghost(x, output)

    def _ghost(self, x: Tensor, output: Tensor) -> Tensor:
        own = self.convolution._modules.get("ghost")
        return self.alpha * (pooled_identity(x, output.shape) if own is None else own(x))

    def remove(self) -> None:
        """Leave the two modules as they were."""
        for handle in self._handles:
            handle.remove()
        self.convolution._modules.pop("ghost", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_input": None}


class GhostSkips(Ghosts):
    """See `ghost_skips_`."""

    kind = "ghost skips"

    @property
    def extra_weights(self) -> int:
        """Of the 1x1 convolutions that the option "conv" adds; 0 without it and after their end."""
        return sum(p.numel() for p in self.parameters() if p.dim() >= 2)

    def parameters(self) -> list[nn.Parameter]:
        """Of the 1x1 convolutions and their norms, which are among the model's own as long as the ghosts last."""
        own = (skip.convolution._modules.get("ghost") for skip in skips_of(self.model))
        return [p for module in own if module is not None for p in module.parameters()]

    @torch.no_grad()
    def _set(self, alpha: float) -> None:
        for skip in self._skips:
            skip.alpha.fill_(alpha)

    def _put(self, places: dict[str, Passed], shortcut: str, seed: int) -> None:
        self._skips: list[Skip] = []
        for name, passed in places.items():
            convolution = self.model.get_submodule(name)
            norm = None if passed.norm is None else self.model.get_submodule(passed.norm)
            if shortcut == "conv" and passed.into[1:] != passed.out[1:]:
                convolution.add_module("ghost", _shortcut(name, convolution, seed))
            self._skips.append(Skip(convolution, norm))
        self._set(self.alpha)

    def _remove(self) -> None:
        remove_skips_(self.model)
        self._skips = []


def ghost_skips_(
    model: nn.Module,
    fade: Fade,
    example: Inputs,
    *,
    shortcut: str = "pool",
    seed: int = 0,
    probe: Inputs | None = None,
) -> GhostSkips:
    """Add to every 3x3 convolution of a model its own input, alpha times, while the fade lasts, in place.

    The sum is behind the norm that alone takes the convolution's output, and before the activation; in a block's last
    convolution the native shortcut joins it. Where no norm takes the output, or others take it as well (the last
    convolution of a pre-activation block), the sum is the convolution's own output. One forward pass in evaluation mode
    on `example` tells. Depthwise convolutions are treated like all others. Convolutions are followed through hooks:
    make compact layers before, and DDP and `torch.compile` after.

    Args:
        example: inputs of the model, with the batch dimension, on its device.
        shortcut: where the shapes differ, "pool" adds the `pooled_identity`; "conv" the authors' 1x1 convolution and
            batch norm, whose weights are parameters of the model under `<convolution>.ghost` as long as the ghosts
            last, so an optimiser must be made after them.
        seed: of those weights (He normal, from the stream "init" of their names).
        probe: inputs for which the largest change of any output by the removal is measured.

    Raises:
        BadValue: for a model without 3x3 convolutions, or of which none can be passed; with ghost skips already; for
            another shortcut.
    """
    if shortcut not in SHORTCUTS:
        raise BadValue(f"shortcut must be one of {', '.join(SHORTCUTS)}, got {shortcut!r}")
    convolutions = [name for name, module in model.named_modules() if is_3x3(module)]
    if not convolutions:
        raise BadValue("ghost skips need 3x3 convolutions (nn.Conv2d or compact), and the model has none")
    if any(skips_of(model)):
        raise BadValue("the model has ghost skips already; finish() those first")
    places, left = _places(model, Trace(model, example), convolutions, shortcut)
    if not places:
        raise BadValue("no 3x3 convolution can be passed: " + "; ".join(f"{name} {why}" for name, why in left.items()))
    ghosts = GhostSkips(model, fade, probe)
    ghosts.done = {name: f"behind {passed.norm or 'the convolution itself'}" for name, passed in places.items()}
    ghosts.left = left
    ghosts._put(places, shortcut, seed)
    return ghosts


def _places(
    model: nn.Module, trace: Trace, names: list[str], shortcut: str
) -> tuple[dict[str, Passed], dict[str, str]]:
    places: dict[str, Passed] = {}
    left: dict[str, str] = {}
    for name in names:
        found = trace.convolution(name)
        if isinstance(found, Passed) and shortcut == "conv" and not _fits(model.get_submodule(name), found):
            found = "has not the padding with which a 1x1 convolution of its stride gives its shape"
        if isinstance(found, Passed):
            places[name] = found
        else:
            left[name] = found
    return places, left


def _fits(convolution: nn.Module, passed: Passed) -> bool:
    """Whether every stride-th pixel is as many as the convolution gives."""
    sizes = zip(passed.into[-2:], _strides(convolution), passed.out[-2:], strict=True)
    return all(-(-into // stride) == out for into, stride, out in sizes)


def _strides(convolution: nn.Module) -> tuple[int, int]:
    assert isinstance(convolution, (nn.Conv2d, CompactConv2d))
    return convolution.stride[0], convolution.stride[1]


def _shortcut(name: str, convolution: nn.Module, seed: int) -> nn.Sequential:
    """The authors' 1x1 convolution and batch norm, where the convolution is."""
    assert isinstance(convolution, (nn.Conv2d, CompactConv2d))
    beside = convolution.values if isinstance(convolution, CompactConv2d) else convolution.weight
    own = nn.Sequential(
        nn.utils.skip_init(
            nn.Conv2d, convolution.in_channels, convolution.out_channels, 1, _strides(convolution), bias=False
        ),
        nn.BatchNorm2d(convolution.out_channels),
    ).to(beside)
    weight, scheme = own[0].weight, Scheme()
    assert isinstance(weight, Tensor)
    generator = stream(seed, "init", f"{name}.ghost.0.weight", *weight.shape)
    drawn = scheme.draw(scheme.deviation(weight.shape), weight.numel(), generator, weight.dtype)
    with torch.no_grad():
        weight.copy_(drawn.view_as(weight))
    return own.train(convolution.training)


def skips_of(model: nn.Module) -> Iterator[Skip]:
    """The ghost skips of a model, each once."""
    seen: set[int] = set()
    for module in model.modules():
        for hook in list(module._forward_hooks.values()):
            skip = getattr(hook, "__self__", None)
            if isinstance(skip, Skip) and id(skip) not in seen:
                seen.add(id(skip))
                yield skip


def remove_skips_(model: nn.Module) -> None:
    """Take every ghost skip out of a model."""
    for skip in list(skips_of(model)):
        skip.remove()
