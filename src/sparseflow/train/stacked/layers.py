"""Which modules have a stacked form, and the forms of those that are neither normalisation nor activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sparseflow.models.dropout import Dropout as SparseflowDropout
from sparseflow.train.stacked.activations import ELU, PReLU, ReLU, Sigmoid, SiLU
from sparseflow.train.stacked.layer import Layer, Mode
from sparseflow.train.stacked.memory import room
from sparseflow.train.stacked.norms import BatchNorm, LayerNorm


class Linear(Layer):
    def _room_for_output(self) -> Tensor:
        weight = self.own.values["weight"]
        output = self.like((self.x.shape[1], weight.shape[1]))
        self._weight, self._turned_weight = weight, weight.transpose(1, 2)
        self._turned_x, self._turned_y = self.x.transpose(1, 2), output.transpose(1, 2)
        self._gx = self.like(tuple(self.x.shape[1:])) if self.wanted else self.x
        self._turned_gx = self._gx.transpose(1, 2)
        return output

    def forward(self, mode: Mode) -> None:
        torch.bmm(self._weight, self._turned_x, out=self._turned_y)
        if "bias" in self.own.values:
            self.y.add_(self.own.values["bias"].unsqueeze(1))

    def backward(self, g: Tensor) -> Tensor:
        turned = g.transpose(1, 2)
        torch.bmm(turned, self.x, out=self.own.gradients["weight"])
        if "bias" in self.own.values:
            torch.sum(g, 1, out=self.own.gradients["bias"])
        if self.wanted:
            torch.bmm(self._turned_weight, turned, out=self._turned_gx)
        return self._gx


class Dropout(Layer):
    """Each member drops what it would drop alone: `generators` are the members' own."""

    overwrites = True
    module: SparseflowDropout

    def prepare(self, x: Tensor, *, over: bool, wanted: bool) -> Tensor:
        y = super().prepare(x, over=over, wanted=wanted)
        self._kept = self.like(tuple(x.shape[1:]))
        self._drawn = room(len(x), tuple(x.shape[1:]), x)
        return y

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        stays = 1.0 - self.module.p
        for drawn, generator in zip(self._drawn, generators, strict=True):
            drawn.bernoulli_(stays, generator=generator)  # draws in the order of memory
        torch.div(self._drawn, stays, out=self._kept)

    def forward(self, mode: Mode) -> None:
        self._drops = mode == "train"
        if self._drops:
            torch.mul(self.x, self._kept, out=self.y)
        elif self.y is not self.x:
            self.y.copy_(self.x)

    def backward(self, g: Tensor) -> Tensor:
        return g.mul_(self._kept) if self._drops else g


class MemberByMember(Layer):
    """Any other module without weights or buffers: each member's own pass through autograd, one after the other."""

    def _room_for_output(self) -> Tensor:
        self._gx = self.like(tuple(self.x.shape[1:]))
        with torch.no_grad():
            one = {name: value[0] for name, value in self.own.values.items()}
            example = functional_call(self.module, one, (torch.zeros_like(self.x[0]),))
        return self.like(tuple(example.shape))

    def forward(self, mode: Mode) -> None:
        self._passes = []
        with torch.enable_grad():
            for k, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
                leaf = x.detach().requires_grad_()
                own = {name: value[k].detach().requires_grad_() for name, value in self.own.values.items()}
                out = functional_call(self.module, own, (leaf,))
                y.copy_(out.detach())
                self._passes.append((out, leaf, own))

    def backward(self, g: Tensor) -> Tensor:
        for k, (out, leaf, own) in enumerate(self._passes):
            gx, *rest = torch.autograd.grad(out, [leaf, *own.values()], g[k])
            for name, gradient in zip(own, rest, strict=True):
                self.own.gradients[name][k].copy_(gradient)
            self._gx[k].copy_(gx)
        return self._gx


class Flatten(Layer):
    """Everything but member and batch into one dimension, without a copy."""

    keeps_output = True

    def _room_for_output(self) -> Tensor:
        return self.x.view(*self.x.shape[:2], -1)

    def forward(self, mode: Mode) -> None:
        pass

    def backward(self, g: Tensor) -> Tensor:
        return g.view(self.x.shape)


class Add(Layer):
    """The sum of two values; the second one is `other`."""

    overwrites = True
    other: Tensor

    def prepare(self, x: Tensor, *, over: bool, wanted: bool) -> Tensor:
        y = super().prepare(x, over=over, wanted=wanted)
        self._copy = self.like(tuple(x.shape[1:]))
        return y

    def forward(self, mode: Mode) -> None:
        torch.add(self.x, self.other, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        self._copy.copy_(g)
        return g

    def gradient_of_other(self) -> Tensor:
        return self._copy


LAYERS: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: Linear,
    nn.BatchNorm1d: BatchNorm,
    nn.LayerNorm: LayerNorm,
    nn.ReLU: ReLU,
    nn.Sigmoid: Sigmoid,
    nn.SiLU: SiLU,
    nn.ELU: ELU,
    nn.PReLU: PReLU,
    SparseflowDropout: Dropout,
}


def layer_for(module: nn.Module) -> type[Layer] | None:
    """How to compute a module stacked; None where it cannot be."""
    kind = LAYERS.get(type(module))
    if kind is BatchNorm:
        assert isinstance(module, nn.BatchNorm1d)
        return BatchNorm if module.track_running_stats and module.momentum is not None else None
    if kind is LayerNorm:
        assert isinstance(module, nn.LayerNorm)
        whole = not module.elementwise_affine or module.bias is not None
        return LayerNorm if len(module.normalized_shape) == 1 and whole else None
    if kind is PReLU:
        assert isinstance(module, nn.PReLU)
        return PReLU if module.num_parameters == 1 else None
    if kind is not None:
        return kind
    plain = all(p.dim() < 2 for p in module.parameters()) and not list(module.buffers())
    return MemberByMember if plain and not isinstance(module, nn.modules.dropout._DropoutNd) else None
