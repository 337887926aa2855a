"""Activation functions of a stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseflow.train.stacked.layer import Layer, Mode

aten = torch.ops.aten


class ReLU(Layer):
    overwrites = keeps_output = True

    def forward(self, mode: Mode) -> None:
        torch.clamp_min(self.x, 0.0, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        aten.threshold_backward.grad_input(g, self.y, 0.0, grad_input=g)
        return g


class Sigmoid(Layer):
    overwrites = keeps_output = True

    def forward(self, mode: Mode) -> None:
        torch.sigmoid(self.x, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        aten.sigmoid_backward.grad_input(g, self.y, grad_input=g)
        return g


class SiLU(Layer):
    def forward(self, mode: Mode) -> None:
        aten.silu.out(self.x, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        aten.silu_backward.grad_input(g, self.x, grad_input=g)
        return g


class ELU(Layer):
    module: nn.ELU

    def forward(self, mode: Mode) -> None:
        aten.elu.out(self.x, self.module.alpha, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        aten.elu_backward.grad_input(g, self.module.alpha, 1.0, 1.0, False, self.x, grad_input=g)
        return g


class PReLU(Layer):
    """One slope per member for all units."""

    def _room_for_output(self) -> Tensor:
        shape = tuple(self.x.shape[1:])
        self._slope = self.own.values["weight"].view(-1, *(1,) * len(shape))
        self._positive, self._work = self.like(shape, torch.bool), self.like(shape)
        return self.like(shape)

    def forward(self, mode: Mode) -> None:
        torch.gt(self.x, 0.0, out=self._positive)
        torch.mul(self.x, self._slope, out=self._work)
        torch.where(self._positive, self.x, self._work, out=self.y)

    def backward(self, g: Tensor) -> Tensor:
        torch.mul(g, self.x, out=self._work)
        self._work.masked_fill_(self._positive, 0.0)
        torch.sum(self._work, tuple(range(1, g.dim())), out=self.own.gradients["weight"].view(-1))
        torch.mul(g, self._slope, out=self._work)
        return torch.where(self._positive, g, self._work, out=g)
