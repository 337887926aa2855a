"""The kinds of comparison: from a preset or file to what `sparseflow compare` carries out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from sparseflow.cli.asked import Asked, overview_table
from sparseflow.cli.searching import search
from sparseflow.core import UnknownName
from sparseflow.study import (
    ArmsSpec,
    Cell,
    CompareSpec,
    DataCache,
    DataFacts,
    Estimator,
    FactsBook,
    Planned,
    RunSpec,
    Store,
    active_at_the_end,
    active_per_layer,
    arms_of,
    assign,
    cells,
    compare_networks,
    compared,
    facts_of,
    first_runs,
    likened,
    likeness_asked,
    read_preset,
    runs_of,
    validate,
    winners,
    with_predecessors,
)
from sparseflow.study.fingerprint import fingerprint
from sparseflow.study.likened import Counting


def ask(name: str, sets: list[str], seeds: int | None, cache: DataCache) -> Asked:
    """The comparison that a preset or file asks for, with `--set` and `--seeds` laid over it.

    Raises:
        UnknownName: for a kind of study that does not exist.
        BadSpec: listing every mistake of the specification.
    """
    content = assign(read_preset(name), sets)
    if seeds is not None:
        content = assign(content, [f"{_kind_of(content)[0]}={seeds}"])
    return asked_for(content, cache)


def asked_for(content: Mapping[str, Any], cache: DataCache) -> Asked:
    """The comparison that a specification of any kind asks for.

    Raises:
        UnknownName: for a kind of study that does not exist.
        BadSpec: listing every mistake of the specification.
    """
    return _kind_of(content)[1]({key: value for key, value in content.items() if key != "kind"}, cache)


def _kind_of(content: Mapping[str, Any]) -> tuple[str, Callable[[Mapping[str, Any], DataCache], Asked]]:
    kind = content.get("kind", "pairs")
    if kind not in KINDS:
        raise UnknownName("kind of study", str(kind), KINDS)
    return KINDS[kind]


def pairs(content: Mapping[str, Any], cache: DataCache) -> Asked:
    """Pairs of equal capacity."""
    spec = validate(CompareSpec, content)
    facts = facts_of(spec, cache)
    table = cells(spec, facts)
    runs = list(runs_of(table))
    places = {
        run.name: f"{cell.optimizer} {cell.variant}, {member}"
        for cell in table
        for pair in cell.pairs
        for member, run in pair.members()
    }
    return Asked(
        title=spec.title,
        size=f"{len(table)} cells x {len(table[0].pairs)} pairs: {len(runs)} runs",
        programme=Planned(runs),
        expected=runs,
        place=lambda run: places.get(run.name),
        study=(spec.study_name, "compare", {"spec": spec.changes(), "facts": asdict(facts)}),
        facts=lambda run: facts,
        notes=facts.notes,
        overview=lambda estimator: _widths(table, facts, estimator),
    )


def _widths(table: list[Cell], facts: DataFacts, estimator: Estimator) -> Table:
    widths = overview_table("Active weights of every pair, layer by layer")
    for column in ("dense width", "active weights per layer", "total", "sparse = dense", "step ms, sparse", "dense"):
        widths.add_column(column, justify="right", no_wrap=column == "total")
    seen = set()
    for pair in sorted((pair for cell in table for pair in cell.pairs), key=lambda pair: pair.dense_width):
        sparse, dense = _counts(pair.sparse, facts), _counts(pair.dense, facts)
        if (pair.dense_width, sparse, dense) in seen:
            continue
        seen.add((pair.dense_width, sparse, dense))
        same = "yes" if sparse == dense else f"NO, dense: {' + '.join(f'{n:,}' for n in dense)}"
        times = [f"{estimator.step_ms(run):.2f}" for run in (pair.sparse, pair.dense)]
        widths.add_row(str(pair.dense_width), " + ".join(f"{n:,}" for n in sparse), f"{sum(sparse):,}", same, *times)
    return widths


def arms(content: Mapping[str, Any], cache: DataCache) -> Asked:
    """Named arms."""
    spec = validate(ArmsSpec, content)
    every = arms_of(spec)
    book = FactsBook.of((point.spec for arm in every for point in arm.points), cache)
    first = first_runs(spec, every)
    # Which point will win is not known yet: the time of the first stands for it.
    later = [arm.points[0].at(seed) for arm in every if arm.chosen for seed in spec.run_seeds]
    choosing = len(spec.choice_seeds) * sum(len(arm.points) for arm in every if arm.chosen)
    places = {point.at(seed).name: arm.name for arm in every for point in arm.points for seed in spec.run_seeds}
    size = f"{len(every)} arms x {len(spec.run_seeds)} seeds"
    size += f", {choosing} runs to choose by" if choosing else ""

    def overview(estimator: Estimator) -> Table:
        table = overview_table("Arms")
        for column in ("arm", "points", "active weights", "step ms"):
            table.add_column(column, justify="left" if column == "arm" else "right")
        for arm in every:
            lead = arm.points[0].spec
            step = f"{estimator.step_ms(lead):.2f}"
            active = active_at_the_end(lead, book(lead).input_shape, book(lead).classes)
            table.add_row(arm.name, str(len(arm.points)), "–" if active is None else f"{active:,}", step)
        return table

    def compare(store: Store, folder: Path, counting: Counting) -> bool:
        results = store.results()
        what = likeness_asked(spec, every, results, book, folder)
        if what.missing or what.reference is None or likened(spec, what, results, folder) is not None:
            return False
        where = cache.surroundings
        made_with = fingerprint(where.device, torch.get_num_threads())
        compare_networks(spec, what, results, folder, cache, where.device, made_with, counting)
        return True

    return Asked(
        title=spec.title,
        size=f"{size}: {len(with_predecessors([*first, *later]))} runs",
        programme=Planned(first, winners(spec, every, book), compared(spec, every)),
        expected=with_predecessors([*first, *later]),
        place=lambda run: places.get(run.name),
        study=(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()}),
        facts=book,
        notes=list(dict.fromkeys(note for facts in book.different() for note in facts.notes)),
        overview=overview,
        compare=compare if spec.likeness else None,
    )


KINDS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], DataCache], Asked]]] = {
    "pairs": ("compare.seeds", pairs),
    "arms": ("seeds", arms),
    "search": ("seeds", search),
}
"""Kind -> (where its number of seeds is, how it is asked). A file without a kind asks for pairs."""


def _counts(run: RunSpec, facts: DataFacts) -> tuple[int, ...]:
    return tuple(active_per_layer(run, facts.input_shape, facts.classes).values())
