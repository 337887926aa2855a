"""What the eigensolvers here need of a matrix: its size and its products. A Hessian has them, and so may a test's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparseflow.core import BadValue

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class Symmetric(Protocol):
    """A symmetric matrix (size, size) that one multiplies by."""

    @property
    def size(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def matmat(self, vectors: Tensor) -> Tensor:
        """(size, k) -> (size, k)."""
        ...


class Matrix:
    """A symmetric matrix that is at hand, as an operator.

    Raises:
        BadValue: for one that is not square, or not symmetric to rounding.
    """

    def __init__(self, entries: Tensor) -> None:
        if entries.dim() != 2 or entries.shape[0] != entries.shape[1]:
            raise BadValue(f"a symmetric matrix is square, got shape {tuple(entries.shape)}")
        if not torch.allclose(entries, entries.T, rtol=1e-4, atol=1e-5 * float(entries.abs().max())):
            raise BadValue("the matrix is not symmetric; give (A + A.T) / 2")
        self.entries, self.size, self.dtype, self.device = entries, len(entries), entries.dtype, entries.device

    def matmat(self, vectors: Tensor) -> Tensor:
        return self.entries @ checked_columns(self, vectors)


def checked_columns(matrix: Symmetric, vectors: Tensor) -> Tensor:
    """The vectors where the matrix is and in its dtype.

    Raises:
        BadValue: unless they have shape (size, k).
    """
    if vectors.dim() != 2 or len(vectors) != matrix.size:
        raise BadValue(f"the matrix has {matrix.size:,} columns, got vectors of shape {tuple(vectors.shape)}")
    return vectors.to(matrix.device, matrix.dtype)


def as_scipy(matrix: Symmetric) -> LinearOperator:
    """A linear operator on numpy arrays, for scipy's eigensolvers."""
    from scipy.sparse.linalg import LinearOperator  # a long import, which a worker that trains need not pay

    def matmat(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        found: npt.NDArray[np.floating] = matrix.matmat(torch.from_numpy(np.ascontiguousarray(vectors))).cpu().numpy()
        return found

    def matvec(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return matmat(vector.reshape(-1, 1))[:, 0]

    dtype = np.dtype(str(matrix.dtype).removeprefix("torch."))
    return LinearOperator((matrix.size, matrix.size), matvec=matvec, matmat=matmat, rmatvec=matvec, dtype=dtype)
