"""A network's training pass for all members of a stack: the model's own order of modules, with stacked layers."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sparseflow.core import SparseflowError, join
from sparseflow.train.stacked.layer import Layer, Mode, Own
from sparseflow.train.stacked.layers import Add, Dropout, Flatten, layer_for
from sparseflow.train.stacked.loss import CrossEntropy


class CannotStack(SparseflowError):
    """The model computes something that has no stacked form."""


@dataclass(frozen=True)
class Use:
    """One operation of the model: which layer class, on which values (0 is the input, k the output of use k - 1)."""

    kind: type[Layer]
    name: str
    """Of the module; "" for an operation without one."""
    inputs: tuple[int, ...]


class _Modules(fx.Tracer):
    """Stops at modules without children: those are computed whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


def outline(model: nn.Module) -> list[Use]:
    """The operations of a model in order; a model on the meta device will do.

    Raises:
        CannotStack: saying what has no stacked form.
    """
    try:
        graph = _Modules().trace(model)
    except Exception as error:  # whatever a model's own code raises when it is traced
        raise CannotStack(f"{type(model).__name__} cannot be traced: {error}") from None
    _check_parameters(model)
    values: dict[fx.Node, int] = {}
    uses: list[Use] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            if values:
                raise CannotStack("a model with several inputs has no stacked form")
            values[node] = 0
        elif node.op == "output":
            if values.get(node.args[0]) != len(uses):
                raise CannotStack("a model whose output is not its last operation's has no stacked form")
        else:
            kind = _kind(model, node)
            if kind is None:
                values[node] = values[node.args[0]]
                continue
            inputs = tuple(values[a] for a in node.args if isinstance(a, fx.Node))
            uses.append(Use(kind, str(node.target) if node.op == "call_module" else "", inputs))
            values[node] = len(uses)
    _check_uses(model, uses)
    return uses


def _kind(model: nn.Module, node: fx.Node) -> type[Layer] | None:
    """The layer class of a node; None for one that passes its input on."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        if isinstance(module, nn.Identity) or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0.0):
            return None
        kind = layer_for(module)
        if kind is None or len(node.args) != 1 or node.kwargs:
            raise CannotStack(f"{node.target}: {type(module).__name__} has no stacked form")
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise CannotStack(f"{node.target}: has hooks, which a stack would not run")
        return kind
    nodes = sum(isinstance(a, fx.Node) for a in node.args)
    if node.target == "flatten" and node.args[1:] == (1,):
        return Flatten
    if node.target in (operator.add, operator.iadd, torch.add) and nodes == len(node.args) == 2 and not node.kwargs:
        return Add
    raise CannotStack(f"{node.target} has no stacked form")


def _check_parameters(model: nn.Module) -> None:
    every = [p for m in model.modules() for p in m.parameters(recurse=False)]
    if len({id(p) for p in every}) < len(every):
        raise CannotStack("tied parameters have no stacked form")
    if not all(p.requires_grad for p in every):
        raise CannotStack("frozen parameters have no stacked form")


def _check_uses(model: nn.Module, uses: list[Use]) -> None:
    times = Counter(use.name for use in uses)
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None and times[name] != 1:
            raise CannotStack(f"{name}: has parameters and is used {times[name]} times")
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d)}
    if len(momenta) > 1:
        raise CannotStack("batch normalisations of different momentum have no stacked form")
    if any(use.kind is Add and use.inputs[0] == use.inputs[1] for use in uses):
        raise CannotStack("the sum of a value with itself has no stacked form")


@dataclass(frozen=True)
class Tensors:
    """A stack's tensors by name, (members, *shape) each; see `layer.Own`."""

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    seen: Mapping[str, Tensor]


class Program:
    """Loss and gradients of all members on batches of one size.

    Args:
        model: of any member; its modules' settings are read, its tensors are not.
        x: (members, batch, *example shape), whose content is the input of every pass.
    """

    def __init__(self, model: nn.Module, tensors: Tensors, x: Tensor) -> None:
        self.x = x
        uses = outline(model)
        read = Counter(k for use in uses for k in use.inputs)
        outputs, learned, kept = [x], [False], [True]
        self._layers: list[tuple[Layer, tuple[int, ...], tuple[bool, ...]]] = []
        for use in uses:
            module = model.get_submodule(use.name)
            own = _own(tensors, module, use.name) if use.name else Own()
            layer = use.kind(module, own)
            first = use.inputs[0]
            if isinstance(layer, Add):
                layer.other = outputs[use.inputs[1]]
            over = use.kind.overwrites and read[first] == 1 and not kept[first]
            outputs.append(layer.prepare(outputs[first], over=over, wanted=learned[first]))
            self._layers.append((layer, use.inputs, tuple(learned[source] for source in use.inputs)))
            learned.append(bool(own.values) or any(learned[source] for source in use.inputs))
            kept.append(use.kind.keeps_output)
        if outputs[-1].dim() != 3:
            raise CannotStack(f"a model whose output has shape {tuple(outputs[-1].shape[1:])} has no stacked loss")
        self._loss = CrossEntropy(outputs[-1])
        self._dropouts = [layer for layer, _, _ in self._layers if isinstance(layer, Dropout)]

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """What the next training pass drops, from the members' streams."""
        for dropout in self._dropouts:
            dropout.draw(generators)

    def forward(self, mode: Mode, y: Tensor, losses: Tensor) -> None:
        """From `x` to the loss.

        Args:
            y: (members, batch) classes.
            losses: (members,), receives each member's mean loss.
        """
        for layer, _, _ in self._layers:
            layer.forward(mode)
        self._loss.forward(y, losses)

    def right(self, y: Tensor) -> Tensor:
        """(members,) number of examples that the last forward pass put into their class."""
        return self._loss.right(y)

    def backward(self) -> None:
        """After `forward` in mode train or probe: every parameter's gradient into its place."""
        gradients: dict[int, Tensor] = {len(self._layers): self._loss.backward()}
        for k in range(len(self._layers), 0, -1):
            if k not in gradients:
                continue  # comes before every parameter
            layer, inputs, learned = self._layers[k - 1]
            found = [layer.backward(gradients.pop(k))]
            if isinstance(layer, Add):
                found.append(layer.gradient_of_other())
            for source, gradient, wanted in zip(inputs, found, learned, strict=True):
                if wanted:
                    gradients[source] = gradients[source].add_(gradient) if source in gradients else gradient


def _own(tensors: Tensors, module: nn.Module, prefix: str) -> Own:
    names = [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]

    def of(some: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: some[join(prefix, name)] for name in names if join(prefix, name) in some}

    return Own(of(tensors.values), of(tensors.gradients), of(tensors.buffers), of(tensors.seen))
