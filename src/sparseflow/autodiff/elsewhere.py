"""The loss of a model with other parameters than its own, to be differentiated by them as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from sparseflow.core import Batch, Loss, SparseflowError


def loss_at(model: nn.Module, loss: Loss, batch: Batch, parameters: Mapping[str, Tensor]) -> Tensor:
    """The loss on a batch with the given tensors in place of the model's parameters of these names.

    What a forward pass in training mode writes (running statistics) is written to copies: the model stays as it is.

    Raises:
        SparseflowError: if the loss is not a scalar.
    """
    inputs, targets = batch
    running = {
        f"{prefix}.{name}" if prefix else name: buffer.clone()
        for prefix, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set  # compact layers' structure, which no pass writes
    }
    value = loss(functional_call(model, {**running, **parameters}, (inputs,)), targets)
    if value.dim() != 0:
        raise SparseflowError(f"the loss must return a scalar tensor, got shape {tuple(value.shape)}")
    return value
