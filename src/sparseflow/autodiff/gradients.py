"""dLoss/dWeight for named weights, masked entries included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sparseflow.core import Batch, Loss, SparseflowError, tapped_weights


def weight_gradients(model: nn.Module, loss: Loss, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """The gradient of `loss` on one batch with respect to the *effective* weights.

    A masked weight is a weight of value 0, so it has a gradient as well; a compact layer yields the dense gradient
    dY^T X of the weight it stands for. `.grad` fields and hooks are not touched.

    Args:
        names: weight names as in `core.weight_shapes`.

    Returns:
        name -> tensor of the weight's dense shape (zeros for a weight that the loss does not reach).

    Raises:
        SparseflowError: if the loss is not a scalar, or a named weight is frozen (requires_grad = False).
    """
    inputs, targets = batch
    with torch.enable_grad(), tapped_weights(model, list(names)) as leaves:
        frozen = [name for name, leaf in leaves.items() if not leaf.requires_grad]
        if frozen:
            raise SparseflowError(f"no gradient for frozen weights: {', '.join(frozen)}; set requires_grad for them")
        value = loss(model(inputs), targets)
        if value.dim() != 0:
            raise SparseflowError(f"the loss must return a scalar tensor, got shape {tuple(value.shape)}")
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }


def mean_weight_gradients(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], names: Sequence[str]
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all examples of `batches`, for a loss that averages over its batch."""
    total: dict[str, Tensor] = {}
    examples = 0
    for batch in batches:
        size = len(batch[1])
        examples += size
        for name, gradient in weight_gradients(model, loss, batch, names).items():
            total[name] = total[name].add_(gradient, alpha=size) if name in total else gradient.mul(size)
    if not examples:
        raise SparseflowError("no batches were given to take a gradient on")
    return {name: gradient.div_(examples) for name, gradient in total.items()}
