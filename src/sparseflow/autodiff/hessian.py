"""Products of the Hessian with a vector, by differentiating the gradient once more (Pearlmutter 1994)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparseflow.autodiff.gradients import over_examples, scalar_loss
from sparseflow.core import Batch, Loss, SparseflowError, stand_ins, tapped_weights


def hessian_product(model: nn.Module, loss: Loss, batch: Batch, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """H v for the Hessian H of `loss` on one batch with respect to the effective weights that `vector` names.

    Masked entries count as weights of value 0. `.grad` fields and hooks are not touched.

    Args:
        vector: weight name -> tensor of the weight's dense shape; the weights it does not name are held fixed.

    Returns:
        name -> tensor of the weight's dense shape; zeros where the gradient does not depend on the weight.

    Raises:
        SparseflowError: if the loss is not a scalar, or a named weight is frozen or a compact layer's, which gives
            first derivatives alone.
    """
    names = list(vector)
    layers = stand_ins(model)
    if compact := [name for name in names if name in layers]:
        raise SparseflowError(f"{', '.join(compact)} is compact and gives no second derivatives; expand() it first")
    # Attention's fused kernels have a first derivative only.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), tapped_weights(model, names) as leaves:
        slopes = torch.autograd.grad(
            scalar_loss(model, loss, batch, leaves), list(leaves.values()), create_graph=True, materialize_grads=True
        )
        along = torch.stack([(g * vector[name]).sum() for name, g in zip(names, slopes, strict=True)]).sum()
        if not along.requires_grad:  # the loss is linear in the weights
            return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        bends = torch.autograd.grad(along, list(leaves.values()), materialize_grads=True)
    return dict(zip(names, bends, strict=True))


def mean_hessian_product(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], vector: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """As `hessian_product`, for the mean loss over all examples of `batches`, where a loss averages over its batch."""
    return over_examples(batches, lambda batch: hessian_product(model, loss, batch, vector))
