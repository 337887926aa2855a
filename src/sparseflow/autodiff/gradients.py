"""dLoss/dWeight for named weights, masked entries included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
    with torch.enable_grad(), tapped_weights(model, list(names)) as leaves:
        value = scalar_loss(model, loss, batch, leaves)
        found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True))


def mean_weight_gradients(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], names: Sequence[str]
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all examples of `batches`, for a loss that averages over its batch."""
    return over_examples(batches, lambda batch: weight_gradients(model, loss, batch, names))


def scalar_loss(model: nn.Module, loss: Loss, batch: Batch, leaves: Mapping[str, Tensor]) -> Tensor:
    """The loss of one batch, to be differentiated by `leaves`.

    Raises:
        SparseflowError: if the loss is not a scalar, or a leaf is frozen.
    """
    inputs, targets = batch
    frozen = [name for name, leaf in leaves.items() if not leaf.requires_grad]
    if frozen:
        raise SparseflowError(f"no gradient for frozen weights: {', '.join(frozen)}; set requires_grad for them")
    value = loss(model(inputs), targets)
    if value.dim() != 0:
        raise SparseflowError(f"the loss must return a scalar tensor, got shape {tuple(value.shape)}")
    return value


def over_examples(batches: Iterable[Batch], of: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of `of(batch)` with each batch weighted by its number of examples.

    Raises:
        SparseflowError: if there are no batches.
    """
    total: dict[str, Tensor] = {}
    examples = 0
    for batch in batches:
        size = len(batch[1])
        examples += size
        for name, part in of(batch).items():
            total[name] = total[name].add_(part, alpha=size) if name in total else part.mul(size)
    if not examples:
        raise SparseflowError("no batches were given to take a gradient on")
    return {name: part.div_(examples) for name, part in total.items()}
