"""Exact selection: as many weights as the budget says, by rank and never by threshold; ties in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from sparseflow.core import BadValue, Masks, Shapes, stream
from sparseflow.masks.budget import Budget, Empty, check_empty

Scores = Mapping[str, Tensor]
"""Weight name -> a score for every weight, of the weight's shape; larger is kept."""


def random_subset(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """A bool mask of `shape` with exactly `count` entries True, each such mask equally likely.

    Raises:
        BadValue: if `count` is negative or exceeds the number of entries.
    """
    total = shape.numel()
    if not 0 <= count <= total:
        raise BadValue(f"cannot choose {count:,} of {total:,} weights (shape {tuple(shape)})")
    mask = torch.zeros(total, dtype=torch.bool)
    # Draw the smaller of the two sets; the first `count` of a random permutation are a uniform subset.
    few = min(count, total - count)
    # 32 bits where they suffice draw the same permutation in half the memory.
    dtype = torch.int32 if total < 2**31 else torch.int64
    mask[torch.randperm(total, generator=generator, dtype=dtype)[:few]] = True
    return (mask if few == count else ~mask).view(shape)


def random_masks(shapes: Shapes, counts: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """For every named layer a uniformly random mask with exactly `counts[name]` active weights (001 eq. A.2).

    A layer's mask depends on (seed, its name) alone.

    Args:
        shapes: weight name -> dense shape.
        counts: weight name -> active weights; layers it does not name are left without a mask.

    Raises:
        BadValue: for a count without a shape, or outside [0, number of weights]; names the layer.
    """
    masks: dict[str, Tensor] = {}
    for name, count in counts.items():
        if name not in shapes:
            raise BadValue(f"no weight {name!r} to mask (known: {', '.join(shapes)})")
        with _naming(name):
            masks[name] = random_subset(shapes[name], count, stream(seed, "mask", name))
    return masks


def select(
    scores: Scores, budget: Budget, seed: int, *, within: Masks | None = None, empty: Empty = "one"
) -> dict[str, Tensor]:
    """The masks with the best-scored weights: exactly `budget` of each layer, or of all layers together.

    Equal scores are ordered at random; constant ones of a layerwise budget give `random_masks`.

    Args:
        within: masks outside of which nothing is chosen, whatever its score.

    Raises:
        BadValue: for NaN scores (names the layer), more weights to choose than there are, a budget or masks of other
            layers than the scores, a layer left empty where `empty` is "error".
    """
    check_empty(empty)
    if isinstance(budget, Mapping) and (strange := [name for name in budget if name not in scores]):
        raise BadValue(f"no scores of {', '.join(map(repr, strange))} (there are: {', '.join(scores)})")
    if within is not None:
        _check_within(scores, within)
    scores = {name: score if score.dtype.itemsize >= 4 else score.float() for name, score in scores.items()}
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise BadValue(f"the scores of {name} are NaN; look at the weights, the loss and the scoring batches")
    if isinstance(budget, Mapping):
        return _of_each(scores, budget, seed, within)
    masks = _of_all(scores, budget, seed, within)
    hollow = [name for name, mask in masks.items() if not mask.any()]
    if not hollow or empty == "allow":
        return masks
    if empty == "error":
        raise BadValue(f"{budget:,} active weights leave none for {', '.join(hollow)}")
    # The best of every layer, then the best of the rest: as before, wherever no layer was empty.
    first = _of_each(scores, dict.fromkeys(scores, 1), seed, within)
    others = {name: (~mask if within is None else within[name].to(mask.device) & ~mask) for name, mask in first.items()}
    if budget < len(first):
        raise BadValue(f"{budget:,} active weights are too few for {len(first)} layers with at least one each")
    rest = _of_all(scores, budget - len(first), seed, others)
    return {name: mask | rest[name] for name, mask in first.items()}


def _check_within(scores: Scores, within: Masks) -> None:
    for name, score in scores.items():
        if name not in within:
            raise BadValue(f"no mask of {name!r} to stay within (there are: {', '.join(within)})")
        if within[name].shape != score.shape:
            raise BadValue(
                f"the mask of {name} to stay within has shape {tuple(within[name].shape)}, "
                f"its scores {tuple(score.shape)}"
            )


def _of_each(scores: Scores, counts: Mapping[str, int], seed: int, within: Masks | None) -> dict[str, Tensor]:
    masks = {}
    for name, count in counts.items():
        score = scores[name]
        with _naming(name):
            kept = best(score.flatten(), count, stream(seed, "mask", name), among=_eligible(within, name))
        masks[name] = kept.view(score.shape)
    return masks


def _of_all(scores: Scores, count: int, seed: int, within: Masks | None) -> dict[str, Tensor]:
    if not scores and not count:
        return {}
    flat = torch.cat([score.flatten() for score in scores.values()])
    eligible = None if within is None else torch.cat([within[name].flatten().to(flat.device) for name in scores])
    parts = best(flat, count, stream(seed, "mask"), among=eligible).split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _eligible(within: Masks | None, name: str) -> Tensor | None:
    return None if within is None else within[name].flatten()


def best(score: Tensor, count: int, generator: torch.Generator, *, among: Tensor | None = None) -> Tensor:
    """Bool, True at the `count` highest scores (1-d); of those equal to the last one taken, some are drawn.

    Args:
        among: bool, where a score takes part; everywhere by default.

    Raises:
        BadValue: for more scores than there are, or a negative number.
    """
    if among is not None:
        places = among.to(score.device).nonzero().squeeze(1)
        kept = torch.zeros_like(score, dtype=torch.bool)
        kept[places] = best(score[places], count, generator)
        return kept
    size = score.numel()
    if not 0 <= count <= size:
        raise BadValue(f"cannot choose {count:,} of {size:,} weights")
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    border = score.kthvalue(size - count + 1).values
    kept, equal = score > border, score == border
    missing, ties = count - int(kept.count_nonzero()), int(equal.count_nonzero())
    if missing == ties:
        return kept | equal
    drawn = random_subset(torch.Size([ties]), missing, generator).to(score.device)
    kept[equal.nonzero().squeeze(1)[drawn]] = True
    return kept


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Inside, errors name the layer."""
    try:
        yield
    except BadValue as error:
        raise BadValue(f"{name}: {error}") from None
