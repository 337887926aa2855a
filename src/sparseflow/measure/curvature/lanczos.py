"""Lanczos tridiagonalisation with full reorthogonalisation (Golub & Van Loan 2013, sec. 10.1, 10.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparseflow.core import BadValue
from sparseflow.measure.curvature.symmetric import Symmetric

Floats = npt.NDArray[np.float64]


class Krylov:
    """An orthonormal basis Q of the space spanned by v, H v, H^2 v ... in which Q' H Q is tridiagonal.

    Each new vector is orthogonalised against all before it, twice, so none is found again by rounding. The basis is
    held whole: (steps, size) numbers.

    Args:
        start: (size,), not zero; it is normalised.
    """

    def __init__(self, matrix: Symmetric, start: Tensor) -> None:
        start = start.to(matrix.device, matrix.dtype)
        length = torch.linalg.vector_norm(start)
        if not length > 0 or not torch.isfinite(length):
            raise BadValue(f"a start of Lanczos' method needs a finite length above 0, got {float(length):g}")
        self._matrix = matrix
        self._rows = torch.empty(min(16, matrix.size), matrix.size, dtype=matrix.dtype, device=matrix.device)
        self._next: Tensor | None = start / length
        self._diagonal: list[float] = []
        self._beside: list[float] = []

    @property
    def steps(self) -> int:
        return len(self._diagonal)

    @property
    def basis(self) -> Tensor:
        """(steps, size), rows orthonormal."""
        return self._rows[: self.steps]

    @property
    def closed(self) -> bool:
        """Whether H maps the space into itself, so that no step is left from this start."""
        return self._next is None

    @property
    def border(self) -> float:
        """The coupling of the space to what lies beyond it; a Ritz vector's residual is its last entry's multiple."""
        return self._beside[-1]

    def step(self) -> None:
        """One more basis vector, by one product."""
        assert self._next is not None
        self._append(self._next)
        image = self._matrix.matmat(self._next.unsqueeze(1)).squeeze(1)
        if not torch.isfinite(image).all():
            raise BadValue("a product of the matrix with a finite vector is not finite")
        size_of_image = float(torch.linalg.vector_norm(image))
        self._diagonal.append(float(torch.dot(self._next.double(), image.double())))
        rest = self._orthogonal(image)
        length = float(torch.linalg.vector_norm(rest))
        rounding = 10 * torch.finfo(self._matrix.dtype).eps * max(size_of_image, self._scale())
        ended = length <= rounding or self.steps == self._matrix.size
        self._beside.append(0.0 if ended else length)
        self._next = None if ended else rest / length

    def restart(self, start: Tensor) -> None:
        """Go on from what a new vector has outside of a closed space: eigenvalues that come several times need it."""
        assert self.closed
        rest = self._orthogonal(start.to(self._matrix.device, self._matrix.dtype))
        self._next = rest / torch.linalg.vector_norm(rest)

    def ritz(self) -> tuple[Floats, Floats]:
        """Eigenvalues (steps,) of the tridiagonal matrix, rising, and its eigenvectors (steps, steps) in columns."""
        from scipy.linalg import eigh_tridiagonal  # a long import, which a worker that trains need not pay

        values, vectors = eigh_tridiagonal(np.array(self._diagonal), np.array(self._beside[:-1]))
        return values, vectors

    def _append(self, vector: Tensor) -> None:
        if self.steps == len(self._rows):
            more = min(2 * len(self._rows), self._matrix.size)
            rows = self._rows.new_empty(more, self._matrix.size)
            rows[: self.steps] = self._rows
            self._rows = rows
        self._rows[self.steps] = vector

    def _orthogonal(self, vector: Tensor) -> Tensor:
        for _ in range(2):
            vector = vector - self.basis.T @ (self.basis @ vector)
        return vector

    def _scale(self) -> float:
        return max((abs(x) for x in (*self._diagonal, *self._beside)), default=0.0)
