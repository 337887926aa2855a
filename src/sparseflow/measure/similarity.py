"""How near networks are to each other, as weights and in what they answer (004 sec. 4.3, app. F)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Masks
from sparseflow.measure.coordinates import Coordinates
from sparseflow.stats import Summary, summary

Over = Literal["mean", "sum"]
"""Samples are averaged, or added up as in 004's ImageNet rows."""

Floats = npt.NDArray[np.float64]


# In the space of weights ---------------------------------------------------------------------------------------------


def points(
    model: nn.Module, states: Iterable[Mapping[str, Tensor]], masks: Masks | None = None, *, others: bool = False
) -> Tensor:
    """(states, active weights), float64: networks as points of the space that a mask leaves.

    Args:
        model: names the weights; its values do not matter.
        states: `state_dict`s, or weights by name; entries outside of the masks are left out.
        masks: the common masks; layers without one are dense.
        others: biases and the parameters of normalisation and activations are coordinates too.

    Raises:
        BadValue: for a state that lacks a weight or has another shape, or no states.
    """
    coordinates = Coordinates(model, masks, others=others)
    rows = [coordinates.of_state(state).double().cpu() for state in states]
    if not rows:
        raise BadValue("there are no states to compare")
    return torch.stack(rows)


def distances(at: Tensor) -> Tensor:
    """(points, dimensions) -> (points, points): L2 distances, 0 on the diagonal."""
    # Not by a matrix product, which loses the distance of near points.
    return torch.stack([torch.linalg.vector_norm(at - one, dim=1, dtype=torch.float64) for one in at])


def embed(between: Tensor) -> Floats:
    """(n, n) distances -> (n, 2) points in a plane whose distances are as near to them as can be found.

    Metric multi-dimensional scaling: the smallest sum of squared differences of distances (SMACOF, scikit-learn), from
    the classical solution (Torgerson 1952) on, which is exact for points that do lie in a plane; so there is no draw.
    The points are centred; their turn and reflection mean nothing.

    Raises:
        BadValue: for a matrix that is not one of distances: square, symmetric, finite, not negative, 0 on the diagonal.
    """
    from sklearn.manifold import smacof  # its import is long, and only this needs it

    d = between.double().cpu().numpy()
    square = d.ndim == 2 and d.shape[0] == d.shape[1]
    if not square or not np.isfinite(d).all() or (d < 0).any() or d.diagonal().any() or not np.allclose(d, d.T):
        raise BadValue("embed takes a symmetric matrix of finite distances with 0 on the diagonal")
    start = _classical(d)
    if len(d) < 3 or not d.any():
        return start
    # In units in which scikit-learn's stopping rule means the same for near points as for far ones.
    unit = d.max()
    found, _ = smacof(d / unit, n_components=2, init=start / unit, n_init=1, eps=1e-12, normalized_stress=False)
    centred: Floats = (found - found.mean(0)) * unit
    return centred


def _classical(d: Floats) -> Floats:
    n = len(d)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centre @ d**2 @ centre)
    two: Floats = np.zeros((n, 2))
    for k in range(min(2, n)):
        two[:, k] = vectors[:, -1 - k] * np.sqrt(max(values[-1 - k], 0.0))
    return two


# In what they answer -------------------------------------------------------------------------------------------------


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of examples whose largest of (examples, classes) is the target's."""
    return float((logits.argmax(1) == targets).double().mean())


def ensemble(logits: Sequence[Tensor]) -> Tensor:
    """(examples, classes), float64: the mean of the models' softmax probabilities.

    Raises:
        BadValue: without models, or for ones that answered different examples.
    """
    return _log_probabilities(logits).exp().mean(0)


def disagreement(first: Tensor, second: Tensor) -> float:
    """Share of examples for which two models predict different classes (Fort et al. 2020), from their logits."""
    one, other = _checked([first, second])
    return float((one.argmax(1) != other.argmax(1)).double().mean())


def disagreements(logits: Sequence[Tensor]) -> Tensor:
    """(examples,), float64: the share of pairs of the models that predict different classes for each example."""
    predicted = torch.stack([one.argmax(1) for one in _checked(logits)])
    differ = [(predicted[a] != predicted[b]).double() for a, b in combinations(range(len(predicted)), 2)]
    if not differ:
        raise BadValue("disagreement among models needs two of them")
    return torch.stack(differ).mean(0)


def gains(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """(examples,), float64: whether the ensemble is right, minus the share of the models that are."""
    right = torch.stack([one.argmax(1) == targets for one in _checked(logits)]).double().mean(0)
    return (ensemble(logits).argmax(1) == targets).double() - right


def kl(of: Tensor, to: Tensor, *, over: Over = "mean") -> float:
    """KL(of || to) = sum_c p_c log(p_c / q_c) in nats, p of the first model and q of the second, from their logits."""
    p, q = _log_probabilities([of, to])
    return _over((p.exp() * (p - q)).sum(1), over)


def jsd(logits: Sequence[Tensor], *, over: Over = "mean") -> float:
    """Jensen-Shannon divergence of the models in nats: the mean KL of each to their mean; at most ln(models).

    For two models at most ln 2 = 0.693, for five ln 5 = 1.609, per sample.
    """
    each = _log_probabilities(logits)
    mean = torch.logsumexp(each, 0) - torch.tensor(float(len(each)), dtype=torch.float64).log()
    return _over((each.exp() * (each - mean)).sum(2).mean(0), over)


@dataclass(frozen=True)
class Comparison:
    """A row of 004 Tables 2 and 6: a group of models among themselves and against a reference, such as the pruned one.

    Summaries (mean, standard deviation, n) are over models or pairs of them; what a group of one or a comparison
    without reference lacks is None.

    Attributes:
        accuracy: of each model.
        ensemble: accuracy of the mean of all softmax probabilities.
        disagreement, kl: over pairs; kl over ordered ones, so in both directions.
        jsd: of all models together, at most ln(models) per sample.
        reference_disagreement, reference_jsd: of each model with the reference.
        to_reference, from_reference: KL(model || reference) and KL(reference || model).
    """

    accuracy: Summary
    ensemble: float
    disagreement: Summary | None
    kl: Summary | None
    jsd: float | None
    reference_disagreement: Summary | None
    to_reference: Summary | None
    from_reference: Summary | None
    reference_jsd: Summary | None


def compare(
    logits: Sequence[Tensor], targets: Tensor, reference: Tensor | None = None, *, over: Over = "mean"
) -> Comparison:
    """Everything that `Comparison` holds, from logits (examples, classes) of models on the same examples.

    Args:
        reference: logits of the model that the group is compared with.
        over: how KL and JSD take samples together.

    Raises:
        BadValue: without models, for logits that do not fit each other or the targets, or an unknown `over`.
    """
    every = _checked(logits)
    if len(targets) != len(every[0]):
        raise BadValue(f"there are logits of {len(every[0]):,} examples and {len(targets):,} targets")
    pairs, several = list(combinations(every, 2)), len(every) > 1
    against = [] if reference is None else [(one, reference) for one in every]
    return Comparison(
        summary([accuracy(one, targets) for one in every]),
        accuracy(ensemble(every), targets),
        summary([disagreement(*pair) for pair in pairs]) if several else None,
        summary([kl(*pair, over=over) for pair in permutations(every, 2)]) if several else None,
        jsd(every, over=over) if several else None,
        summary([disagreement(*pair) for pair in against]) if against else None,
        summary([kl(one, to, over=over) for one, to in against]) if against else None,
        summary([kl(to, one, over=over) for one, to in against]) if against else None,
        summary([jsd(pair, over=over) for pair in against]) if against else None,
    )


def _checked(logits: Sequence[Tensor]) -> list[Tensor]:
    if not logits:
        raise BadValue("there are no models to compare")
    for one in logits:
        if one.dim() != 2 or one.shape != logits[0].shape or not one.numel():
            raise BadValue(
                f"models are compared by logits (examples, classes) of the same examples, got {tuple(one.shape)} and "
                f"{tuple(logits[0].shape)}"
            )
    return list(logits)


def _log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """(models, examples, classes), float64."""
    return torch.log_softmax(torch.stack([one.double() for one in _checked(logits)]), 2)


def _over(samples: Tensor, over: str) -> float:
    if over not in ("mean", "sum"):
        raise BadValue(f"over must be 'mean' or 'sum', got {over!r}")
    return float(samples.mean() if over == "mean" else samples.sum())
