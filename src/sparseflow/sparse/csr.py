"""The products by torch's own CSR kernels: for devices and machines that have no better ones."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sparseflow.sparse.kernel import Shape
from sparseflow.sparse.structure import Structure

_csr = torch.sparse_csr_tensor

with warnings.catch_warnings():
    # torch says once per process that its CSR tensors are in beta; these products rest on them knowingly.
    warnings.simplefilter("ignore")
    _csr([0, 0], [], [], (1, 1), check_invariants=False)


class CsrKernel:
    """`Kernel` of a linear layer on any device; activations (features, batch)."""

    def __init__(self, structure: Structure) -> None:
        self._starts, self._outs = structure.starts, structure.outs
        self._shape = structure.shape
        self._order = structure.by_row()
        self._cols = structure.ins()[self._order].int()
        counts = torch.bincount(structure.outs, minlength=structure.shape[0])
        self._rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()

    def forward(self, values: Tensor, x: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        weight = _csr(self._rows, self._cols, values[self._order], self._shape, check_invariants=False)
        y: Tensor = weight @ x
        return y if bias is None else y.add_(bias[:, None])

    def backward(
        self, g: Tensor, shape: Shape, values: Tensor | None, x: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        dx = dvalues = None
        if values is not None:
            dx = self._transposed(values) @ g
        if x is not None:
            pattern = self._transposed(g.new_zeros(self._outs.numel()))
            dvalues = torch.sparse.sampled_addmm(pattern, x, g.t(), beta=0.0).values().clone()
        return dx, dvalues

    def _transposed(self, values: Tensor) -> Tensor:
        return _csr(self._starts, self._outs, values, self._shape[::-1], check_invariants=False)
