"""`sparseflow prune`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from sparseflow.cli.bench import numbers
from sparseflow.cli.masks import followed, print_masks
from sparseflow.cli.networks import Network, Request, network, scoring_batches
from sparseflow.cli.progress import counting
from sparseflow.core import BadValue
from sparseflow.masks import Density, Empty, Provenance, criteria, prune, save
from sparseflow.report import write_mask_report
from sparseflow.study import assign, plan_for


@dataclass(frozen=True)
class Wish:
    """How to prune; None is the criterion's own choice."""

    criterion: str
    density: str
    budget: str | None = None
    examples: int | None = None
    batch_size: int = 128
    rounds: int | None = None
    exclude: Sequence[str] = ()
    dense: Sequence[str] = ()
    options: Sequence[str] = ()
    empty: Empty = "one"
    mode: Literal["train", "eval"] | None = None


def run_prune(console: Console, request: Request, wish: Wish, out: Path, report: Path | None) -> None:
    """Prune a network, save the masks, and say what they are."""
    facts = criteria.entry(wish.criterion).facts
    density = _density(wish.density)
    found = network(request)
    batches = scoring_batches(found, wish.examples, wish.batch_size) if facts["needs_batches"] else None
    if batches is None and wish.examples is not None:
        raise BadValue(f"--examples: criterion {wish.criterion!r} looks at none")
    options = assign({}, wish.options, "--option")
    with counting(f"prune {found.name}") as progress:
        masks = prune(
            found.model,
            wish.criterion,
            density,
            budget=wish.budget,
            batches=batches,
            loss=plan_for(found.spec).loss if batches else None,
            rounds=wish.rounds,
            seed=found.spec.seed,
            exclude=list(wish.exclude) or None,
            dense=list(wish.dense) or None,
            mode=wish.mode,
            empty=wish.empty,
            progress=progress,
            **_with_shape(wish.criterion, options, found),
        )
    made = Provenance.of(
        found.model,
        name=found.name,
        criterion=wish.criterion,
        budget=wish.budget or (facts["budget"] if isinstance(density, float) else "vector"),
        density=density,
        rounds=facts["rounds"] if wish.rounds is None else wish.rounds,
        seed=found.spec.seed,
        options=options | _choices(wish, batches),
        data=found.spec.data.name if batches else "",
        data_digest=found.data.digest if batches and found.data else "",
        recipe=found.recipe,
    )
    save(out, masks, made)
    shown = followed(out.name, masks, made, found)
    print_masks(console, shown)
    console.print(f"masks: {out}")
    if report is not None:
        console.print(f"report: {write_mask_report(report, [shown])}")


def _density(text: str) -> Density:
    found = numbers("--density", text, float)
    if not found:
        raise BadValue("--density takes a number in (0, 1], or one for each layer with commas between them")
    return found[0] if len(found) == 1 else found


def _with_shape(criterion: str, options: dict[str, Any], found: Network) -> dict[str, Any]:
    """The options, with the shape of the inputs for a criterion that makes its own."""
    if "input_shape" not in inspect.signature(criteria[criterion]).parameters or "input_shape" in options:
        return options
    if found.input_shape is None:
        raise BadValue(f"criterion {criterion!r} needs to know the inputs: give --input-shape or --data")
    return {**options, "input_shape": found.input_shape}


def _choices(wish: Wish, batches: Sequence[Any] | None) -> dict[str, Any]:
    """What else was chosen, as far as it differs from the default."""
    chosen: dict[str, Any] = {"exclude": list(wish.exclude), "dense": list(wish.dense), "mode": wish.mode}
    if wish.empty != "one":
        chosen["empty"] = wish.empty
    if batches:
        chosen |= {"examples": sum(len(y) for _, y in batches), "batch_size": wish.batch_size}
    return {name: value for name, value in chosen.items() if value}
