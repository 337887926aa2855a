"""`prune`: a mask for any model."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy
import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Batch, Loss, Masks, Shapes, check_positive, global_stream, stream_seed
from sparseflow.masks.budget import Density, Empty, budgets, count, without
from sparseflow.masks.criteria import Snapshot, criteria
from sparseflow.masks.criteria.snapshot import Criterion
from sparseflow.masks.examples import balanced
from sparseflow.masks.select import Scores, select
from sparseflow.masks.when import exponential
from sparseflow.masks.which import Selection, matching, prunable


def prune(
    model: nn.Module,
    criterion: str | Criterion,
    density: Density,
    *,
    budget: str | None = None,
    batches: Iterable[Batch] | None = None,
    loss: Loss | None = None,
    rounds: int | None = None,
    seed: int = 0,
    only: Selection = None,
    exclude: Selection = None,
    dense: Selection = None,
    samples_per_class: int | None = None,
    mode: Literal["train", "eval"] | None = None,
    empty: Empty = "one",
    progress: Callable[[int, int], None] = lambda done, rounds: None,
    **options: Any,
) -> dict[str, Tensor]:
    """A mask for every prunable weight of a model, which comes back as it was: values, buffers, mode, gradients, RNG.

    Args:
        criterion: name in `masks.criteria`, or a function (snapshot, **options) -> scores, larger is kept.
        density: part of the selected weights that stays active, in (0, 1]; one for each layer (in order or by name)
            for the budget "vector".
        budget: name in `masks.budgets`; the criterion's own by default ("uniform" for random, "vector" where several
            densities are given, else "global").
        batches: (inputs, targets) pairs that gradients are taken on; all of them are used, in every round.
        loss: (model output, targets) -> scalar, a mean over its batch.
        rounds: score, prune to an exponentially falling density, score again ...; the criterion's own by default.
        seed: of ties, random masks and dropout while scoring.
        only, exclude: which weights may be pruned: name patterns, module types or predicates (name, parameter) ->
            bool. By default all of two dimensions or more. The density is that of the selected weights.
        dense: weights, selected in the same ways, that keep all their entries and still count in the density (of
            the budgets that share a total; "uniform" gives the other layers the density itself).
        samples_per_class: score on that many examples of each class, the first ones in the batches.
        mode: the model's mode while scoring; what the authors used by default.
        empty: what becomes of a layer that would be left without a weight: it keeps one ("one"), an error ("error"),
            it stays empty ("allow").
        progress: called with (rounds done, rounds).
        options: the criterion's and the budget's own.

    Returns:
        weight name -> bool mask on the weight's device, in the model's order, with exactly as many active weights as
        the budget says.

    Raises:
        UnknownName: for a criterion or budget that is not in its catalog.
        BadValue: for a density outside (0, 1] or that leaves a layer nothing, batches or a loss that are missing, an
            option that neither criterion nor budget has, scores that are NaN, a selector that matches nothing.
    """
    score, facts = _criterion(criterion)
    weights = prunable(model, only, exclude)
    shapes: Shapes = {name: weight.shape for name, weight in weights.items()}
    kept = matching(model, weights, dense, "dense")
    name = budget or ("vector" if not isinstance(density, float | int) else facts["budget"])
    own, of_budget = _split_options(score, name, options)
    final = count(name, shapes, density, kept, empty=empty, **of_budget)
    rounds = check_positive("rounds", facts["rounds"] if rounds is None else rounds)
    training = _is_training(mode or facts["mode"])
    with _no_trace(seed):
        if isinstance(batches, Iterator):
            batches = list(batches)  # every round goes through them again
        if samples_per_class is not None:
            if batches is None:
                raise BadValue("samples_per_class takes them from batches; give batches=[(inputs, targets), ...]")
            batches = [balanced(batches, samples_per_class)]
        work = _copy(model, weights, training=training)
        prepared: list[object] = []
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        for done in range(1, rounds + 1):
            scores = score(Snapshot(work, list(shapes), masks, loss, batches, prepared), **own)
            goal = without(exponential(final, shapes, done, rounds), shapes, kept)
            ties = seed if done == 1 else stream_seed(seed, "round", done)  # one stream would favour some places
            masks |= select(_ranked(scores, shapes, kept), goal, ties, within=masks, empty=empty)
            _clear(work, masks)
            progress(done, rounds)
    return masks


_OF_A_FUNCTION: Mapping[str, Any] = {"budget": "global", "rounds": 1, "mode": "eval"}


def _criterion(criterion: str | Criterion) -> tuple[Criterion, Mapping[str, Any]]:
    if isinstance(criterion, str):
        entry = criteria.entry(criterion)
        return entry.make, entry.facts
    return criterion, _OF_A_FUNCTION


def check_options(criterion: str, budget: str, options: Mapping[str, Any]) -> None:
    """Raise unless every option is one of the criterion's or the budget's.

    Raises:
        BadValue: with the options that they have.
    """
    _split_options(criteria[criterion], budget, options)


def _is_training(mode: str) -> bool:
    if mode not in ("train", "eval"):
        raise BadValue(f"mode must be train or eval, got {mode!r}")
    return mode == "train"


def own_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a criterion or budget has."""
    return {name: value for name, value in options.items() if name in _keywords(function)}


def _split_options(score: Criterion, budget: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the criterion, and those of the budget."""
    known = [_keywords(score), _keywords(budgets[budget])]
    for option in options:
        if not any(option in names for names in known):
            listed = ", ".join(sorted({name for names in known for name in names})) or "none"
            label = getattr(score, "__name__", "this criterion")
            raise BadValue(f"{label} with budget {budget!r} has no option {option!r} (they have: {listed})")
    return own_options(score, options), own_options(budgets[budget], options)


def _keywords(function: Callable[..., Any]) -> set[str]:
    return {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


@contextmanager
def _no_trace(seed: int) -> Iterator[None]:
    """Inside, random numbers are those of a stream of the seed; then every generator is as it was."""
    python, numpys = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - loaders may draw from it
    try:
        with global_stream(seed, "score"):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numpys)  # noqa: NPY002


def _copy(model: nn.Module, names: Iterable[str], *, training: bool) -> nn.Module:
    """What is scored: a copy, so that nothing can be left behind in the model."""
    work = copy.deepcopy(model).train(training)
    for name in names:
        work.get_parameter(name).requires_grad_(True)
    return work


def _ranked(scores: Scores, shapes: Shapes, kept: Collection[str]) -> dict[str, Tensor]:
    """The scores that compete, checked: a criterion may be anybody's."""
    for name, shape in shapes.items():
        if name not in scores:
            raise BadValue(f"the criterion returned no score for {name}")
        if scores[name].shape != shape:
            raise BadValue(f"scores of {name} have shape {tuple(scores[name].shape)}, its weight {tuple(shape)}")
    return {name: scores[name] for name in shapes if name not in kept}


@torch.no_grad()
def _clear(model: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(~mask, 0.0)
