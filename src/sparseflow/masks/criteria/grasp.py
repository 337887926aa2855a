"""GraSP: gradient signal preservation."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sparseflow.autodiff import mean_weight_gradients
from sparseflow.core import BadValue, Batch
from sparseflow.masks.criteria.snapshot import Snapshot, criteria
from sparseflow.masks.select import Scores


@criteria.add(
    "grasp",
    cite="Wang et al. 2020, arXiv:2002.07376",
    budget="global",
    rounds=1,
    mode="train",
    needs_batches=True,
    runs_model=True,
)
def grasp(at: Snapshot, *, temperature: float = 200.0, halves: bool = True) -> Scores:
    """theta * (H g): what removing a weight takes from the gradient norm; g is held fixed.

    The paper scores -theta * (H g) and removes the highest.

    Args:
        temperature: the model's outputs are divided by it.
        halves: split every batch in two, as the authors do; with batch normalisation in training mode each half has
            its own statistics.

    Raises:
        BadValue: for a temperature that is not positive.
    """
    if not temperature > 0:
        raise BadValue(f"temperature must be positive, got {temperature:g}")
    base = at.loss

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return base(outputs / temperature, targets)

    def batches() -> Iterator[Batch]:
        for batch in at.batches:
            yield from _halves(batch) if halves else (batch,)

    gradients = mean_weight_gradients(at.model, loss, batches(), at.names)
    products = at.hessian_product(gradients, loss, batches())
    return {name: weight * products[name] for name, weight in at.weights.items()}


def _halves(batch: Batch) -> tuple[Batch, ...]:
    inputs, targets = batch
    middle = len(targets) // 2
    return ((inputs[:middle], targets[:middle]), (inputs[middle:], targets[middle:])) if middle else (batch,)
