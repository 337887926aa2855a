"""What a criterion may look at, and the catalog of criteria."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from sparseflow.autodiff import mean_hessian_product, mean_weight_gradients
from sparseflow.core import BadValue, Batch, Catalog, Loss, Masks
from sparseflow.masks.select import Scores

Criterion = Callable[..., Scores]
"""(snapshot, **options) -> weight name -> score of every weight; larger is kept."""

criteria: Catalog[Criterion] = Catalog("criterion")
"""name -> criterion. Facts: `budget`, `rounds` and `mode` are what `prune` takes where it is not told otherwise;
`needs_batches`, whether it looks at examples and a loss; `runs_model`, whether it looks at more than single weights."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of the model at one round of pruning: weights outside of the masks are 0. Criteria may change the copy.

    Attributes:
        names: of the weights to score.
        masks: of the weights that are still active; none in the first round.
    """

    model: nn.Module
    names: Sequence[str]
    masks: Masks
    _loss: Loss | None = None
    _batches: Iterable[Batch] | None = None
    _prepared: list[object] = field(default_factory=list)
    """What was done to the copy; the rounds of one pruning share it."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weight name -> value, detached."""
        return {name: self.model.get_parameter(name).detach() for name in self.names}

    @property
    def batches(self) -> Iterable[Batch]:
        """The scoring batches.

        Raises:
            BadValue: if none were given.
        """
        if self._batches is None:
            raise BadValue("this criterion scores weights on examples; give batches=[(inputs, targets), ...]")
        return self._batches

    @property
    def loss(self) -> Loss:
        """The loss of the scoring batches.

        Raises:
            BadValue: if none was given.
        """
        if self._loss is None:
            raise BadValue(
                "this criterion differentiates a loss; give loss=, such as torch.nn.functional.cross_entropy"
            )
        return self._loss

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Weight name -> dLoss/dWeight of the mean loss over all scoring batches, masked entries included."""
        return mean_weight_gradients(self.model, self.loss, self.batches, self.names)

    def hessian_product(self, vector: Mapping[str, Tensor], loss: Loss, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Weight name -> (H v) of the mean loss over the batches."""
        return mean_hessian_product(self.model, loss, batches, vector)

    def prepare(self, change: Callable[[nn.Module], None], key: object) -> None:
        """Change the copy in place, once for all the rounds that share it."""
        if key not in self._prepared:
            change(self.model)
            self._prepared.append(key)
