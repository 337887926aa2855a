"""The straight path between two networks (Goodfellow et al. 2015, arXiv:1412.6544; 004 Fig. 5c, 5f, 9c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Batch, Loss
from sparseflow.measure.outcome import outcome
from sparseflow.measure.probing import normalisations, own_copy, read, set_mode
from sparseflow.sparse import expand

State = Mapping[str, Tensor]

ELEVEN = tuple([k / 10 for k in range(11)])
"""Points of a path by default: 0, 0.1 ... 1."""


@dataclass(frozen=True)
class Path:
    """Loss and accuracy along a path; accuracies are None where targets are not class numbers.

    Attributes:
        alphas: 0 is the first network, 1 the second.
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...] | None

    @property
    def barrier(self) -> float:
        """The most by which the loss between the ends lies above the straight line between theirs; at least 0.

        Frankle et al. 2020 (arXiv:1912.05671, sec. 2) take the mean of the end losses in the place of the line, which
        is the same where they are equal.

        Raises:
            BadValue: for a path without its two ends.
        """
        start, end = self.ends
        return max(value - ((1 - a) * start + a * end) for a, value in self._inside())

    @property
    def height(self) -> float:
        """The most by which the loss between the ends lies above the higher of theirs; at least 0.

        Raises:
            BadValue: for a path without its two ends.
        """
        higher = max(self.ends)
        return max(value - higher for _, value in self._inside())

    @property
    def ends(self) -> tuple[float, float]:
        """The losses at alpha 0 and 1.

        Raises:
            BadValue: for a path without its two ends.
        """
        if 0.0 not in self.alphas or 1.0 not in self.alphas:
            raise BadValue("a barrier is measured from both ends; the path needs alpha = 0 and alpha = 1")
        return self.losses[self.alphas.index(0.0)], self.losses[self.alphas.index(1.0)]

    def _inside(self) -> list[tuple[float, float]]:
        return [(a, value) for a, value in zip(self.alphas, self.losses, strict=True) if 0 <= a <= 1]


def interpolate(
    model: nn.Module,
    first: State,
    second: State,
    loss: Loss,
    batches: Iterable[Batch],
    alphas: Sequence[float] = ELEVEN,
    *,
    statistics: Iterable[Batch] | None = None,
) -> Path:
    """Loss and accuracy of (1 - alpha) first + alpha second, in evaluation mode.

    Args:
        model: what the states are of; its own values do not matter, and it comes back as it was. Compact layers are
            expanded in a copy, so the two states may have different masks.
        first, second: `state_dict`s; biases and the parameters of normalisation go along. Entries that are not
            floating-point numbers are those of the nearer end.
        alphas: where to look; those outside of [0, 1] extrapolate.
        statistics: training batches to take batch normalisation's running statistics from anew at every alpha, each
            batch counting alike. The statistics of the ends describe the activations of their own weights; mixed, they
            fit no network between, and the loss there may rise for that alone (Jordan et al. 2022, arXiv:2211.08403).
            Recomputed ones also make sense of a network that was never trained. By default they are interpolated, as
            the weights are, so that the ends have exactly the losses of the stored networks.

    Raises:
        BadValue: for states of another architecture than the model, or no batches.
    """
    work, some = expand(own_copy(model, "eval")), read(batches)
    taken = None if statistics is None else read(statistics)
    for which, state in (("first", first), ("second", second)):
        _check_fits(work.state_dict(), state, which)
    found = []
    for alpha in alphas:
        work.load_state_dict(mixed(first, second, alpha))
        if taken is not None:
            recompute_statistics(work, taken)
        found.append(outcome(work, loss, some))
    accuracies = tuple(at.accuracy for at in found if at.accuracy is not None)
    return Path(
        tuple(map(float, alphas)),
        tuple(at.loss for at in found),
        accuracies if len(accuracies) == len(found) else None,
    )


def mixed(first: State, second: State, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) first + alpha second, entry by entry; exactly an end where alpha is 0 or 1."""
    if alpha in (0.0, 1.0):
        return dict(second if alpha else first)
    nearer = second if alpha > 0.5 else first
    return {
        name: (1 - alpha) * one + alpha * second[name].to(one) if one.is_floating_point() else nearer[name]
        for name, one in first.items()
    }


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Make the running statistics of batch normalisation the mean of those of the batches, in place.

    The model is left in evaluation mode.
    """
    norms = [norm for norm in normalisations(model) if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    set_mode(model, "train")
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
        if norms:
            for inputs, _ in batches:
                model(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()


def _check_fits(own: State, state: State, which: str) -> None:
    for name in own:
        if name not in state:
            raise BadValue(f"the {which} state has no {name!r}, which the model has; both must be of its architecture")
        if state[name].shape != own[name].shape:
            shape, ours = tuple(state[name].shape), tuple(own[name].shape)
            raise BadValue(f"{name} has shape {shape} in the {which} state, {ours} in the model")
    if more := [name for name in state if name not in own]:
        raise BadValue(f"the {which} state has {more[0]!r}, which the model has not; both must be of its architecture")
