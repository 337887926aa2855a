"""Batch normalisation that keeps the batch last.

torch normalises a batch-last tensor several times slower than a plain one and hands the result on in another order, so
a compact layer behind it would have to turn it back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparseflow.sparse import native, parts
from sparseflow.sparse.layout import packed

_MIN_WORK = 1 << 17
"""Elements that repay waking another thread."""


def keep_batch_last(model: nn.Module) -> None:
    """Let every plain `nn.BatchNorm1d` and `nn.BatchNorm2d` of the model take and return batch-last tensors, in place.

    The modules become subclasses of themselves: parameters, buffers, `state_dict` and hooks stay.
    """
    for module in model.modules():
        if type(module) in _KEEPING:
            module.__class__ = _KEEPING[type(module)]


def forget_batch_last(model: nn.Module) -> None:
    """Undo `keep_batch_last`."""
    plain = {keeping: kind for kind, keeping in _KEEPING.items()}
    for module in model.modules():
        if type(module) in plain:
            module.__class__ = plain[type(module)]


class _BatchLast(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        by_batch = self.training or self.running_mean is None
        # torch's own is fast where no graph is kept; in one, every turn to the next layer's order is kept as well.
        if not _takes(x) or not (by_batch or torch.is_grad_enabled()):
            return super().forward(x)
        moved = x.movedim(0, -1)
        if not by_batch:
            return self._by_running_statistics(moved).movedim(-1, 0)
        samples = moved[0].numel()
        y, mean, var = _Normalise.apply(moved, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            self._track(mean, var, samples)
        normalised: Tensor = y.movedim(-1, 0)
        return normalised

    def _by_running_statistics(self, x: Tensor) -> Tensor:
        """(channels, ..., batch) -> the same order; differentiable as often as one likes."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = (self.running_var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -self.running_mean * scale
        shift = shift if self.bias is None else shift + self.bias
        ones = (1,) * (x.dim() - 1)
        return torch.addcmul(shift.view(-1, *ones), x, scale.view(-1, *ones))

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, samples: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((var * (samples / (samples - 1))).to(self.running_var), share)


class BatchLastNorm1d(_BatchLast, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that keeps batch-last tensors in their order."""


class BatchLastNorm2d(_BatchLast, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that keeps batch-last tensors in their order."""


_KEEPING: dict[type, type] = {nn.BatchNorm1d: BatchLastNorm1d, nn.BatchNorm2d: BatchLastNorm2d}


def _takes(x: Tensor) -> bool:
    """Whether the batch-last kernel is for this tensor; one sample a channel is left to torch's own error."""
    usual = x.device.type == "cpu" and x.dtype in native.DTYPES and x.numel() > x.shape[1]
    eager = type(x) is Tensor and not torch.compiler.is_compiling()
    return usual and eager and not x.is_contiguous() and x.movedim(0, -1).is_contiguous() and native.available()


class _Normalise(torch.autograd.Function):
    """(channels, ..., batch) -> the same normalised; beside it mean and biased variance, float64, without gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.empty_like(x)
        mean = torch.empty(x.shape[0], dtype=torch.float64)
        var = torch.empty_like(mean)
        buffers = (*_buffers(x), *_parameters(x, weight, bias), *_buffers(y, mean, var))
        parts.run(native.norm().forward, (*_geometry(x), eps, *buffers), x.numel(), _MIN_WORK)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *rest: None) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None
        x, weight, bias, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: torch's own formula knows its derivative
            return *_differentiable(g, x, weight, mean, var, ctx), None
        g = packed(g)
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight, dbias = torch.empty_like(mean), torch.empty_like(mean)
        buffers = (
            *_buffers(g, x),
            *_parameters(x, weight),
            *_buffers(mean, var),
            None if dx is None else native.buffer(dx),
        )
        fixed = (*_geometry(x), ctx.eps, *buffers, *_buffers(dweight, dbias))
        parts.run(native.norm().backward, fixed, x.numel(), _MIN_WORK)
        return (
            dx,
            dweight.to(weight) if ctx.needs_input_grad[1] else None,
            dbias.to(bias) if ctx.needs_input_grad[2] else None,
            None,
        )


def _differentiable(
    g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, var: Tensor, ctx: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    channels = x.shape[0]
    dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
        g.reshape(1, channels, -1),
        x.reshape(1, channels, -1),
        weight,
        None,
        None,
        mean.to(x),
        (var + ctx.eps).rsqrt().to(x),
        True,
        ctx.eps,
        list(ctx.needs_input_grad[:3]),
    )
    return (
        dx.reshape(x.shape) if ctx.needs_input_grad[0] else None,
        dweight if ctx.needs_input_grad[1] else None,
        dbias if ctx.needs_input_grad[2] else None,
    )


def _geometry(x: Tensor) -> tuple[int, int, int]:
    return x.element_size(), x.shape[0], x[0].numel()


def _buffers(*tensors: Tensor) -> list[tuple[int, int]]:
    return [native.buffer(t) for t in tensors]


def _parameters(x: Tensor, *parameters: Tensor | None) -> list[tuple[int, int] | None]:
    for p in parameters:
        if p is not None:
            native.checked("a normalisation's parameter", p, (x.shape[0],), x.dtype)
    return [None if p is None else native.buffer(p) for p in parameters]
