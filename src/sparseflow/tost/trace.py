"""Where ghosts can go, seen in one forward pass rather than guessed from names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from sparseflow.core import mode
from sparseflow.sparse import CompactConv2d
from sparseflow.tost.ghosts import Inputs, call

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
"""Batch and instance normalisation, among them those of compact networks, share the first."""
FUNCTIONAL_NORMS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm"})
FUNCTIONAL_RELUS = frozenset({"relu", "relu_", "relu6"})
RELUS = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class Passed:
    """A convolution's call: the shapes of its input and output; the norm that alone takes its output, if one does."""

    into: torch.Size
    out: torch.Size
    norm: str | None


class Trace(TorchFunctionMode):
    """One forward pass of a model in evaluation mode, watched; the model is as before.

    Attributes:
        calls: name of a module -> how often it was called.
        relus: name of a module -> how often its own forward called a ReLU as a function.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.relus: Counter[str] = Counter()
        self._modules = dict(model.named_modules())
        self._inside: list[str] = []
        self._outputs: dict[int, tuple[str, Tensor]] = {}
        """id of a convolution's output -> its name, and the tensor itself, kept alive so that its id is its own."""
        self._shapes: dict[str, tuple[torch.Size, torch.Size]] = {}
        self._takers: dict[str, list[tuple[str, str]]] = {}
        """Name of a convolution -> (innermost module, function) of whatever computes with its output, in order."""
        with ExitStack() as stack:
            for name, module in self._modules.items():
                for handle in self._watch(name, module):
                    stack.callback(handle.remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(mode(model, training=False))
            with self:
                call(model, inputs)
        self._outputs.clear()

    def _watch(self, name: str, module: nn.Module) -> Iterator[RemovableHandle]:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.calls[name] += 1
            self._inside.append(name)

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._inside.pop()
            if is_3x3(module) and args:
                self._outputs[id(output)] = name, output
                self._shapes[name] = args[0].shape, output.shape
                self._takers[name] = []

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watched = [t for t in _tensors((*args, *kwargs.values())) if id(t) in self._outputs]
        versions = [t._version for t in watched]
        out = func(*args, **kwargs)
        name, inside = getattr(func, "__name__", ""), self._inside[-1] if self._inside else ""
        if name in FUNCTIONAL_RELUS and not isinstance(self._modules[inside], RELUS):
            self.relus[inside] += 1
        made = list(_tensors((out,)))
        for tensor, version in zip(watched, versions, strict=True):
            # Dropout in evaluation hands on the very tensor; what works in place does so as well, but changes it.
            if made and not (made[0] is tensor and tensor._version == version):
                self._takers[self._outputs[id(tensor)][0]].append((inside, name))
        return out

    def convolution(self, name: str) -> Passed | str:
        """What happened to the convolution of this name, or why no ghost can go past it."""
        if self.calls[name] != 1:
            return "is not called in evaluation mode" if not self.calls[name] else "is called several times in one pass"
        if name not in self._shapes:
            return "takes its input as a keyword"
        takers = self._takers[name]
        modules = {module for module, _ in takers}
        norm = next(iter(modules)) if len(modules) == 1 else ""
        if not isinstance(self._modules.get(norm), NORMS):
            as_function = (f in FUNCTIONAL_NORMS and not isinstance(self._modules[m], NORMS) for m, f in takers)
            if any(as_function):
                return "is followed by a normalisation that is called as a function; make it a module"
            return Passed(*self._shapes[name], None)
        if self.calls[norm] != 1:
            return f"is followed by {norm}, which is called several times in one pass"
        return Passed(*self._shapes[name], norm)


def is_3x3(module: nn.Module) -> bool:
    """Whether the module is a convolution of a 3x3 kernel, compact or not."""
    return isinstance(module, (nn.Conv2d, CompactConv2d)) and tuple(module.kernel_size) == (3, 3)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
