"""The checked Python border of the C kernels: a sparse weight's three products on activations kept in panels.

A `Plan` is built once from a mask and never changes. Values are a flat vector in the plan's own order: `values =
dense.flatten()[plan.flat]`, or `by_row[plan.order]` from row-major order. Activations are `Panels`-shaped tensors
(tiles, features, width): sample b is lane b % width of tile b // width, and lanes past the batch are zero. The layout
of a batch is the same for every layer of a network: `width_of(batch)`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import _kernels
import torch
from torch import Tensor

_TYPES = (torch.float32, torch.float64)


def width_of(batch: int) -> int:
    """Samples in a tile: the width that pads least, a tile's fixed cost counted as a few samples; ties to the wider."""
    return min((64, 48, 32, 16), key=lambda width: -(-batch // width) * (width + 6))


def panels_shape(batch: int, features: int) -> tuple[int, int, int]:
    width = width_of(batch)
    return -(-batch // width), features, width


def _buffer(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor, contiguous: copied if it was not."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor on the CPU, got {tensor.layout} on {tensor.device}")
    if tensor.dtype is not dtype or tensor.dtype not in _TYPES:
        raise ValueError(f"{name} must be {dtype}, one of float32 and float64; got {tensor.dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    return tensor.contiguous().resolve_neg()


def pack(x: Tensor, *, batch_major: bool = True) -> Tensor:
    """(batch, features), or (features, batch) if not `batch_major`, into panels."""
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(f"pack needs a non-empty matrix, got shape {tuple(x.shape)}")
    if batch_major and x.stride(0) == 1 and x.shape[1] > 1:
        x, batch_major = x.t(), False  # stored feature-major: the cheaper conversion, and no copy before it
    x = _check("x", x, tuple(x.shape), x.dtype)
    batch, features = x.shape if batch_major else (x.shape[1], x.shape[0])
    panels = x.new_empty(panels_shape(batch, features))
    _kernels.pack(x.element_size(), batch, panels.shape[2], features, batch_major, _buffer(x), _buffer(panels))
    return panels


def unpack(panels: Tensor, batch: int, *, batch_major: bool = True) -> Tensor:
    """The inverse of `pack`."""
    features = panels.shape[1] if panels.dim() == 3 else 0
    panels = _check("panels", panels, panels_shape(batch, features), panels.dtype)
    x = panels.new_empty((batch, features) if batch_major else (features, batch))
    width = panels.shape[2]
    _kernels.unpack(x.element_size(), batch, width, features, batch_major, _buffer(panels), _buffer(x))
    return x


class Plan:
    """The structure of a sparse (out, in) weight, in the forms that the kernels read.

    Args:
        starts, columns: int32 CSR of the mask, columns ascending within a row.
        shape: (out, in).
        blocks: (outputs, inputs) of a block of the forward, then (inputs, outputs) of one of the backward product.
    """

    def __init__(
        self,
        starts: Tensor,
        columns: Tensor,
        shape: tuple[int, int],
        blocks: tuple[int, int, int, int] | None = None,
    ) -> None:
        for name, tensor in (("starts", starts), ("columns", columns)):
            if tensor.dtype is not torch.int32 or tensor.dim() != 1 or tensor.device.type != "cpu":
                raise ValueError(f"{name} must be a flat int32 tensor on the CPU, got {tensor.dtype} {tensor.device}")
        self.shape = shape
        self.active = columns.numel()
        starts, columns = starts.contiguous(), columns.contiguous()
        self.blocks = blocks or _blocks(*shape, self.active)
        self._structure = _kernels.Structure(*shape, _buffer(starts), _buffer(columns), self.blocks)
        self.order = torch.empty(self.active, dtype=torch.int64)  # row-major index of each value
        self._structure.order(_buffer(self.order))
        rows = torch.repeat_interleave(torch.arange(shape[0]), starts.diff().long(), output_size=self.active)
        self.flat = (rows * shape[1] + columns)[self.order]  # of each value in the flattened dense weight

    @classmethod
    def of(cls, mask: Tensor, blocks: tuple[int, int, int, int] | None = None) -> Plan:
        if mask.dtype is not torch.bool or mask.dim() != 2:
            raise ValueError(f"a plan needs a bool mask (out, in), got {mask.dtype} of shape {tuple(mask.shape)}")
        rows, columns = mask.cpu().nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=mask.shape[0])
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
        return cls(starts, columns.int(), (mask.shape[0], mask.shape[1]), blocks)

    def forward(self, values: Tensor, x: Tensor, batch: int, bias: Tensor | None = None, threads: int = 1) -> Tensor:
        """W x + bias: panels of the inputs -> panels of the outputs."""
        values = _check("values", values, (self.active,), values.dtype)
        x = _check("x", x, panels_shape(batch, self.shape[1]), values.dtype)
        if bias is not None:
            bias = _check("bias", bias, (self.shape[0],), values.dtype)
        y = x.new_empty(panels_shape(batch, self.shape[0]))
        buffers = (_buffer(values), _buffer(x), _buffer(y), None if bias is None else _buffer(bias))
        geometry = (values.element_size(), batch, x.shape[2])
        _in_parts(lambda part: self._structure.forward(*geometry, *buffers, part, threads), threads)
        return y

    def backward(
        self, values: Tensor, x: Tensor, g: Tensor, batch: int, *, dx: bool = True, dv: bool = True, threads: int = 1
    ) -> tuple[Tensor | None, Tensor | None]:
        """(W^T g, gradient of the values) of the output's gradient g; None for what is not wanted."""
        if not (dx or dv):
            return None, None
        g = _check("g", g, panels_shape(batch, self.shape[0]), g.dtype)
        if dx:
            values = _check("values", values, (self.active,), g.dtype)
        if dv:
            x = _check("x", x, panels_shape(batch, self.shape[1]), g.dtype)
        to_x = g.new_empty(panels_shape(batch, self.shape[1])) if dx else None
        to_values = g.new_empty(self.active) if dv else None
        buffers = (
            _buffer(g),
            _buffer(values) if dx else None,
            _buffer(x) if dv else None,
            None if to_x is None else _buffer(to_x),
            None if to_values is None else _buffer(to_values),
        )
        geometry = (g.element_size(), batch, g.shape[2])
        _in_parts(lambda part: self._structure.backward(*geometry, *buffers, part, threads), threads)
        return to_x, to_values

    def dense(self, values: Tensor) -> Tensor:
        flat = torch.zeros(self.shape[0] * self.shape[1], dtype=values.dtype)
        flat[self.flat] = values
        return flat.view(self.shape)


def _blocks(n_out: int, n_in: int, active: int) -> tuple[int, int, int, int]:
    """Block sizes as measured (tune.py): the widest input panel that still serves a row with enough weights.

    A visit to a row costs loading and storing its sums, which about ten weights repay in the forward product (forty in
    the backward one, whose weights do twice the work per load). Where density allows, the panel shrinks to what the
    first-level cache holds; below, the second-level cache must do.
    """
    density = max(active, 1) / (n_out * n_in)
    return (
        min(512, _round(n_out)),
        min(max(128, _round(10 / density)), _round(n_in), 4096),
        min(512, _round(n_in)),
        min(max(192, _round(40 / density)), _round(n_out), 4096),
    )


def _round(size: float) -> int:
    return max(64, int(-(-size // 64)) * 64)


_pool: ThreadPoolExecutor | None = None


def _in_parts(call: Callable[[int], None], parts: int) -> None:
    """The parts of a product, each its own outputs, on as many threads: the kernels release the GIL."""
    global _pool
    if parts == 1:
        call(0)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(16, "sparse-kernel")
    waiting = [_pool.submit(call, part) for part in range(1, parts)]
    call(0)
    for future in waiting:
        future.result()
