"""Products of the Hessian with a vector, by differentiating the gradient once more (Pearlmutter 1994)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparseflow.autodiff.gradients import over_examples, scalar_loss
from sparseflow.core import Batch, Loss, SparseflowError, stand_ins, tapped_weights


class Slopes:
    """The gradient of one batch's loss with the graph that made it: each Hessian product costs a backward pass alone.

    The tensors stay those of the forward pass: a leaf that is changed in place afterwards makes torch refuse the next
    product. `.grad` fields and hooks are not touched.

    Args:
        leaves: name -> tensor of the model that the loss is differentiated by: parameters, a compact layer's values
            among them, or what `core.tapped_weights` yields where one derivative is enough.

    Attributes:
        value: the loss, detached.
        gradient: name -> dLoss/dleaf, detached; zeros for a leaf that the loss does not reach.

    Raises:
        SparseflowError: if the loss is not a scalar, or a leaf is frozen (requires_grad = False).
    """

    def __init__(self, model: nn.Module, loss: Loss, batch: Batch, leaves: Mapping[str, Tensor]) -> None:
        self._leaves = dict(leaves)
        # Attention's fused kernels have a first derivative only.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value = scalar_loss(model, loss, batch, leaves)
            found = torch.autograd.grad(value, list(leaves.values()), create_graph=True, materialize_grads=True)
        self._slopes = dict(zip(leaves, found, strict=True))
        self.value = value.detach()

    @property
    def gradient(self) -> dict[str, Tensor]:
        return {name: slope.detach() for name, slope in self._slopes.items()}

    def product(self, vector: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
        """H v of this batch, leaf -> tensor of its shape, both ways; the last product need not `keep` the graph."""
        return self._bends(vector, keep, batched=False)

    def products(self, vectors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
        """Several products in one backward pass (torch's vmap): leaf -> (k, *leaf's shape), both ways.

        What has no rule for vmap, such as the products of compact layers, makes torch raise.
        """
        return self._bends(vectors, keep, batched=True)

    def _bends(self, vectors: Mapping[str, Tensor], keep: bool, batched: bool) -> dict[str, Tensor]:
        curved = [name for name, slope in self._slopes.items() if slope.requires_grad]
        if not curved:  # the loss is linear in the leaves
            return {name: torch.zeros_like(vectors[name]) for name in self._leaves}
        bends = torch.autograd.grad(
            [self._slopes[name] for name in curved],
            list(self._leaves.values()),
            [vectors[name] for name in curved],
            retain_graph=keep,
            allow_unused=True,  # torch's own zeros would not be batched
            is_grads_batched=batched,
        )
        pairs = zip(self._leaves, bends, strict=True)
        return {name: torch.zeros_like(vectors[name]) if bend is None else bend for name, bend in pairs}


def hessian_product(model: nn.Module, loss: Loss, batch: Batch, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """H v for the Hessian H of `loss` on one batch with respect to the effective weights that `vector` names.

    Masked entries count as weights of value 0. `.grad` fields and hooks are not touched.

    Args:
        vector: weight name -> tensor of the weight's dense shape; the weights it does not name are held fixed.

    Returns:
        name -> tensor of the weight's dense shape; zeros where the gradient does not depend on the weight.

    Raises:
        SparseflowError: if the loss is not a scalar, or a named weight is frozen or a compact layer's, which gives
            first derivatives alone with respect to the dense weight (`Slopes` differentiates by its values).
    """
    names = list(vector)
    layers = stand_ins(model)
    if compact := [name for name in names if name in layers]:
        raise SparseflowError(f"{', '.join(compact)} is compact and gives no second derivatives; expand() it first")
    with tapped_weights(model, names) as leaves:
        return Slopes(model, loss, batch, leaves).product(vector, keep=False)


def mean_hessian_product(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], vector: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """As `hessian_product`, for the mean loss over all examples of `batches`, where a loss averages over its batch."""
    return over_examples(batches, lambda batch: hessian_product(model, loss, batch, vector))
