"""What a gradient step will do, as the Hessian sees it (004 app. E)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseflow.core import BadValue
from sparseflow.measure.curvature.hessian import Hessian


@dataclass(frozen=True)
class PredictedStep:
    """The change of the loss by theta <- theta - rate g, to second order.

    Attributes:
        squared_gradient: g'g, 004's gradient flow.
        curvature: g'Hg / g'g, the mean eigenvalue weighted by the gradient; nan for a gradient of 0.
        first: -rate g'g (004 eq. 27).
        second: rate^2 / 2 g'Hg, what eq. 28 adds.
        change: their sum (eq. 28); the loss falls where it is negative.
    """

    squared_gradient: float
    curvature: float
    first: float
    second: float
    change: float


def predicted_step(hessian: Hessian, rate: float) -> PredictedStep:
    """The predicted change of the loss by one step of plain gradient descent on the active weights.

    By one product. The gradient is the Hessian's own, of the same batches.

    Args:
        rate: the learning rate, at least 0.

    Raises:
        BadValue: for a negative rate.
    """
    if not rate >= 0:
        raise BadValue(f"rate must not be negative, got {rate:g}")
    g = hessian.gradient
    squared = float(torch.dot(g.double(), g.double()))
    bent = float(torch.dot(g.double(), hessian.matvec(g).double()))
    first, second = -rate * squared, rate**2 / 2 * bent
    return PredictedStep(squared, bent / squared if squared else float("nan"), first, second, first + second)


def alignment(gradient: Tensor, vectors: Tensor) -> Tensor:
    """Cosines between the gradient and eigenvectors; their squares are shares of g'g, which sum to 1 over all of them.

    An eigenvector's sign is arbitrary, and so is a cosine's.

    Args:
        gradient: (size,).
        vectors: (size, k), such as `extremes(hessian, top=5).top.vectors`.

    Returns:
        (k,), float64.

    Raises:
        BadValue: for a gradient of 0, which has no direction, or shapes that do not fit.
    """
    if vectors.dim() != 2 or len(vectors) != len(gradient):
        raise BadValue(f"the gradient has {len(gradient):,} entries, the vectors shape {tuple(vectors.shape)}")
    g, v = gradient.double(), vectors.double()
    length = torch.linalg.vector_norm(g)
    if not length > 0:
        raise BadValue("the gradient is 0 and has no direction")
    found: Tensor = v.T @ g / (length * torch.linalg.vector_norm(v, dim=0))
    return found
