"""Normalisation layers of a stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparseflow.train.stacked.layer import Layer, Mode

aten = torch.ops.aten


class BatchNorm(Layer):
    """(x - mean) / sqrt(var + eps) over each member's batch, or by the running statistics."""

    module: nn.BatchNorm1d

    def _room_for_output(self) -> Tensor:
        shape, channels = tuple(self.x.shape[1:]), self.x.shape[-1]
        self._mean, self._rate, self._scale, self._shift = (self.like((1, channels)) for _ in range(4))
        self._centred, self._work = self.like(shape), self.like(shape)
        ones, zeros = torch.ones_like(self._mean), torch.zeros_like(self._mean)
        affine = self.module.affine
        self._weight = self.own.values["weight"].unsqueeze(1) if affine else ones
        self._bias = self.own.values["bias"].unsqueeze(1) if affine else zeros
        self._g_weight = self.own.gradients["weight"].unsqueeze(1) if affine else torch.empty_like(ones)
        self._g_bias = self.own.gradients["bias"].unsqueeze(1) if affine else torch.empty_like(zeros)
        self._running = [self.own.buffers[name].unsqueeze(1) for name in ("running_mean", "running_var")]
        self._seen = [self.own.seen[name].unsqueeze(1) for name in ("running_mean", "running_var")]
        return self.like(shape)

    def forward(self, mode: Mode) -> None:
        if mode == "evaluate":
            mean, var = self._running
            torch.add(var, self.module.eps, out=self._rate).rsqrt_()
            torch.mul(self._rate, self._weight, out=self._scale)
            torch.addcmul(self._bias, mean, self._scale, value=-1.0, out=self._shift)
            torch.mul(self.x, self._scale, out=self.y)
            self.y.add_(self._shift)
            return
        batch = self.x.shape[1]
        torch.mean(self.x, 1, keepdim=True, out=self._mean)
        torch.sub(self.x, self._mean, out=self._centred)
        torch.mul(self._centred, self._centred, out=self.y)
        torch.mean(self.y, 1, keepdim=True, out=self._rate)
        if mode == "train":
            self._seen[0].copy_(self._mean)
            torch.mul(self._rate, batch / (batch - 1), out=self._seen[1])
        self._rate.add_(self.module.eps).rsqrt_()
        torch.mul(self._rate, self._weight, out=self._scale)
        torch.mul(self._centred, self._scale, out=self.y)
        self.y.add_(self._bias)

    def backward(self, g: Tensor) -> Tensor:
        # With c the centred input and r the rate: gx = scale * (g - mean(g) - c r^2 mean(g c)), g_weight = sum(g c) r.
        batch = self.x.shape[1]
        torch.sum(g, 1, keepdim=True, out=self._g_bias)
        torch.mul(g, self._centred, out=self._work)
        torch.sum(self._work, 1, keepdim=True, out=self._g_weight)
        self._g_weight.mul_(self._rate)
        self._rate.mul_(self._g_weight).mul_(self._scale).div_(batch)
        torch.mul(self._g_bias, self._scale, out=self._shift).div_(batch)
        g.mul_(self._scale).sub_(torch.mul(self._centred, self._rate, out=self._work))
        return g.sub_(self._shift)


class LayerNorm(Layer):
    module: nn.LayerNorm

    def _room_for_output(self) -> Tensor:
        self._gx = self.like(tuple(self.x.shape[1:]))
        self._work = self.like(tuple(self.x.shape[1:]))
        return self.like(tuple(self.x.shape[1:]))

    def forward(self, mode: Mode) -> None:
        shape = self.module.normalized_shape
        self._normal, self._mean, self._rate = torch.native_layer_norm(self.x, shape, None, None, self.module.eps)
        if self.module.elementwise_affine:
            torch.mul(self._normal, self.own.values["weight"].unsqueeze(1), out=self.y)
            self.y.add_(self.own.values["bias"].unsqueeze(1))
        else:
            self.y.copy_(self._normal)

    def backward(self, g: Tensor) -> Tensor:
        if self.module.elementwise_affine:
            torch.sum(g, 1, out=self.own.gradients["bias"])
            torch.mul(g, self._normal, out=self._work)
            torch.sum(self._work, 1, out=self.own.gradients["weight"])
            g.mul_(self.own.values["weight"].unsqueeze(1))
        shape = self.module.normalized_shape
        gx, _, _ = aten.native_layer_norm_backward(
            g, self.x, shape, self._mean, self._rate, None, None, [True, False, False]
        )
        return self._gx.copy_(gx)
