"""Samplers: which vector to try next, as a function of what has been tried and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparseflow.core import BadValue, Catalog, stream
from sparseflow.search.space import Space, Vector
from sparseflow.search.uniform import draw

Origin = Literal["random", "initial", "bayes"]
Told = Sequence[tuple[Sequence[float], float]]
"""Vectors and their scores, larger is better; NaN for a run that has none, because it diverged."""


@dataclass(frozen=True)
class Suggestion:
    """A vector to try, and whether a model chose it ("bayes"), or chance: as the sampler's start ("initial"), or
    otherwise ("random")."""

    vector: Vector
    origin: Origin


samplers: Catalog[Callable[..., Suggestion]] = Catalog("sampler")
"""name -> (space, number, seed, told, pending, **options): suggestion `number` (from 0) of a search."""


def suggest(
    sampler: str,
    space: Space,
    number: int,
    seed: int,
    told: Told = (),
    pending: Sequence[Sequence[float]] = (),
    **options: Any,
) -> Suggestion:
    """Suggestion `number` of a search: the same one for the same arguments, whatever was asked before.

    It obeys the space's bounds exactly and is none of the vectors in `told` and `pending`. If those two hold all
    earlier suggestions, as they should, nothing is suggested twice.

    Args:
        told: what has a score.
        pending: what has been suggested and has no score yet.
        options: the sampler's own.

    Raises:
        UnknownName: for a sampler that is not in the catalog.
        BadValue: for an option that it does not have or a value out of its domain, a negative number, a vector of
            another length, or if all vectors are taken.
    """
    check_options(sampler, options)
    if number < 0:
        raise BadValue(f"suggestions are numbered from 0, got {number}")
    for vector in [*(v for v, _ in told), *pending]:
        space.densities(vector)  # raises for another length
    return samplers[sampler](space, number, seed, told, pending, **options)


def check_options(sampler: str, options: Mapping[str, Any]) -> None:
    """Raise BadValue unless the sampler has every one of the options."""
    parameters = inspect.signature(samplers[sampler]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise BadValue(f"sampler {sampler!r} has no option {option!r} (it has: {', '.join(known) or 'none'})")


@samplers.add("random", cite="001 sec. 4.3.2; Bergstra and Bengio 2012, JMLR 13:281-305")
def random(
    space: Space, number: int, seed: int, told: Told = (), pending: Sequence[Sequence[float]] = ()
) -> Suggestion:
    """Uniform over all vectors that obey the bounds."""
    return Suggestion(by_chance(space, number, seed, told, pending), "random")


def by_chance(space: Space, number: int, seed: int, told: Told = (), pending: Sequence[Sequence[float]] = ()) -> Vector:
    """The vector that chance gives this number.

    Of the numbers, streams are independent. What is taken makes a difference only where a draw would repeat it, and
    told and pending together do not depend on the order in which scores come in.
    """
    taken = {tuple(vector) for vector, _ in told} | {tuple(vector) for vector in pending}
    return draw(space, stream(seed, "search", number), taken)
