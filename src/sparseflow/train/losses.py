"""Losses that a network is trained by and not judged by."""

from __future__ import annotations

from functools import partial

from torch.nn import functional as F

from sparseflow.core import BadValue, Loss


def smoothed(alpha: float = 0.1) -> Loss:
    """The cross entropy against labels (1 - alpha) y + alpha / K for K classes (003 sec. 2.3; Szegedy et al. 2016).

    For `Plan.training_loss`: an evaluation loss has hard labels.

    Args:
        alpha: in [0, 1); 0.1 in the paper.

    Raises:
        BadValue: for another alpha.
    """
    if not 0.0 <= alpha < 1.0:
        raise BadValue(f"label smoothing must be in [0, 1), got {alpha:g}")
    return partial(F.cross_entropy, label_smoothing=alpha)
