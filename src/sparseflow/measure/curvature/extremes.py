"""The largest and the smallest eigenvalues with their vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseflow.core import BadValue, SparseflowError, check_positive, stream
from sparseflow.measure.curvature.lanczos import Floats, Krylov
from sparseflow.measure.curvature.symmetric import Symmetric

_CHECK_EVERY = 5
"""Lanczos steps between two looks at what has converged."""


@dataclass(frozen=True)
class Eigenpairs:
    """Some eigenvalues of a matrix H with their vectors.

    Attributes:
        values: (k,), float64, the outermost first.
        vectors: (size, k), of unit length, in the order of the values.
        residuals: (k,), |H v - value v|, by a product of their own: no eigenvalue of H is farther from the value.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


@dataclass(frozen=True)
class Extremes:
    """The top eigenpairs (falling), the bottom ones (rising), and the Lanczos steps they took."""

    top: Eigenpairs
    bottom: Eigenpairs
    steps: int


def extremes(
    matrix: Symmetric,
    top: int = 1,
    bottom: int = 0,
    *,
    tolerance: float | None = None,
    max_steps: int = 1000,
    seed: int = 0,
) -> Extremes:
    """The `top` largest and the `bottom` smallest eigenvalues, both ends from one Lanczos process.

    Tolerances are relative to the norm of H, not to the eigenvalue: the smallest one of a loss near its minimum is
    often a thousandth of the largest.

    Args:
        matrix: such as a `Hessian`.
        tolerance: residual at most this times the largest |eigenvalue|; 1e-6 in float64, 1e-4 in float32 by default.
        max_steps: products at most, before the one for each residual; all basis vectors are held in memory.
        seed: of the starting vector.

    Raises:
        BadValue: for more eigenvalues than the matrix has, or none.
        SparseflowError: where `max_steps` are not enough, with the residuals reached.
    """
    check_positive("top + bottom", top + bottom)
    if min(top, bottom) < 0:
        raise BadValue(f"top and bottom must not be negative, got {top} and {bottom}")
    if top + bottom > matrix.size:
        raise BadValue(f"asked for {top} + {bottom} eigenvalues of a matrix that has {matrix.size:,}; ask for fewer")
    if tolerance is None:
        tolerance = 1e-6 if matrix.dtype == torch.float64 else 1e-4
    krylov, wanted = _converged(matrix, top, bottom, tolerance, check_positive("max_steps", max_steps), seed)
    values, vectors = krylov.ritz()
    upper, lower = (_pairs(matrix, krylov, values[some], vectors[:, some]) for some in (wanted[:top], wanted[top:]))
    return Extremes(upper, lower, krylov.steps)


def _converged(
    matrix: Symmetric, top: int, bottom: int, tolerance: float, max_steps: int, seed: int
) -> tuple[Krylov, list[int]]:
    """The process at its end, and the indices of the wanted Ritz values: from the top down, from the bottom up."""
    draw = stream(seed, "lanczos")
    krylov = Krylov(matrix, torch.randn(matrix.size, generator=draw, dtype=torch.float64))
    before: Floats | None = None  # the wanted values when the space last closed
    while True:
        krylov.step()
        done = krylov.steps
        last = done in (matrix.size, max_steps)
        if done >= top + bottom and (last or krylov.closed or done % _CHECK_EVERY == 0):
            values, vectors = krylov.ritz()
            wanted = [*range(done - 1, done - 1 - top, -1), *range(bottom)]
            bound = float(np.abs(krylov.border * vectors[-1, wanted]).max())
            small = tolerance * float(np.abs(values).max())
            # A closed space has every eigenvalue, but once: going on from another vector finds those that come twice.
            same = krylov.closed and before is not None and bool(np.all(np.abs(values[wanted] - before) <= small))
            if done == matrix.size or same or (bound <= small and before is None and not krylov.closed):
                return krylov, wanted
            before = values[wanted] if krylov.closed else before
        if last:
            reached = "" if done < top + bottom else f", which leave residuals up to {bound:.3g}"
            raise SparseflowError(
                f"{top} + {bottom} eigenvalues did not converge in {done} steps{reached}; "
                "raise max_steps or the tolerance"
            )
        if krylov.closed:
            krylov.restart(torch.randn(matrix.size, generator=draw, dtype=torch.float64))


def _pairs(matrix: Symmetric, krylov: Krylov, values: Floats, small: Floats) -> Eigenpairs:
    vectors = krylov.basis.T @ torch.from_numpy(small).to(matrix.device, matrix.dtype)
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=0)
    found = torch.from_numpy(values).to(matrix.device)
    rest = (matrix.matmat(vectors) - vectors * found.to(matrix.dtype)) if len(values) else vectors
    return Eigenpairs(found, vectors, torch.linalg.vector_norm(rest.double(), dim=0))
