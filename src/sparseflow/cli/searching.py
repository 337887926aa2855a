"""A search over layer densities, as a preset or file asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from sparseflow.cli.asked import Asked, overview_table
from sparseflow.core import BadSpec, BadStore
from sparseflow.search import Found, Search, SearchSpec, quests, stored, to_depth
from sparseflow.study import (
    DataCache,
    Estimator,
    FactsBook,
    RunSpec,
    Surroundings,
    assign,
    facts_of,
    presets,
    read_preset,
    store_of,
    validate,
)


def preset_of(name: str) -> str:
    """A preset of searches may be named without its first word: digits for search-digits."""
    return f"search-{name}" if f"search-{name}" in presets() else name


def settings(
    preset: str, given: Mapping[str, object], sets: list[str], source: Path | None, data_root: str | None
) -> list[str]:
    """The assignments that a command's options stand for, before those that are given as such.

    Args:
        source: the folder of a search whose winner is to be tried first.

    Raises:
        BadSpec: for a preset that is of another kind.
        BadStore: for a folder without a search that has a winner.
    """
    content = read_preset(preset)
    if content.get("kind") != "search":
        raise BadSpec(
            [f"{preset} is a study of kind {content.get('kind', 'pairs')!r}; use `sparseflow compare {preset}`"]
        )
    if isinstance(content.get("sampler"), str):
        given = {key.replace("sampler.name", "sampler"): value for key, value in given.items()}
    wanted = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None] + sets
    if source is None:
        return wanted
    spec = validate(SearchSpec, {k: v for k, v in assign(content, wanted).items() if k != "kind"})
    cache = DataCache(Surroundings(data_root=data_root))
    vectors = {quest.space.dimensions for quest in quests(spec, lambda run: facts_of(run, cache))}
    if len(vectors) > 1:
        raise BadSpec(["--from: the searches of this study have different numbers of layers; leave one in cross"])
    vector, label = _winner(source)
    carried = to_depth(vector, vectors.pop())
    return [*wanted, f"transfer={json.dumps({'vector': carried, 'source': label})}"]


def _winner(folder: Path) -> tuple[tuple[float, ...], str]:
    """The vector that the last search of a folder found, and where that was."""
    store = store_of(folder)
    try:
        content = next((content for _, kind, content in store.studies() if kind == "search"), None)
        if content is None:
            raise BadStore(f"{folder} holds no search; --from takes the folder of one")
        results = store.results()
        found = [Found.of(quest, store, results) for quest in stored(content)]
        best = [(one.winner, one.quest.label) for one in found]
        won = max(((t.score, t.vector, label) for t, label in best if t is not None), default=None)
        if won is None:
            raise BadStore(f"{folder}: none of its trials has ended yet")
        return won[1], " ".join(part for part in (str(folder), won[2]) if part)
    finally:
        store.close()


def search(content: Mapping[str, Any], cache: DataCache) -> Asked:
    """Trials, then what they found on seeds of its own."""
    spec = validate(SearchSpec, content)
    every = quests(spec, lambda run: facts_of(run, cache))
    programme = Search(every)
    expected = programme.expected()
    book = FactsBook.of([*(quest.spec.plain() for quest in every), *expected], cache)
    seeds = {quest.spec.trial_seed for quest in every}

    def place(run: RunSpec) -> str | None:
        return " ".join(f"{d:.3g}" for d in run.mask.densities or ()) if run.seed in seeds else None

    def overview(estimator: Estimator) -> Table:
        table = overview_table("Search spaces")
        for column in ("search", "layer", "weights", "densities"):
            table.add_column(column, justify="left" if column in ("search", "layer") else "right")
        for quest in every:
            space = quest.space
            for name, size in space.sizes.items():
                table.add_row(quest.label or "–", name, f"{size:,}", f"{space.low:g} to {space.high:g}")
            bound = "no bound" if space.max_density is None else f"at most {space.limit:,}"
            table.add_row(quest.label or "–", "all", f"{space.total:,}", bound)
        return table

    tries = sum(quest.spec.samples for quest in every)
    what = f"{len(every)} searches, " if len(every) > 1 else ""
    return Asked(
        title=spec.title,
        size=f"{what}{tries} vectors to try; with the runs that tell of them, {len(expected)} runs",
        programme=programme,
        expected=expected,
        place=place,
        study=(
            spec.study_name,
            "search",
            {
                "spec": spec.changes(),
                "facts": book.dump(),
                "spaces": [quest.dump() for quest in every],
            },
        ),
        facts=book,
        notes=list(dict.fromkeys(note for facts in book.different() for note in facts.notes)),
        overview=overview,
        split=spec.score,
    )
