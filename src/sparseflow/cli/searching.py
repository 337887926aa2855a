"""A search over layer densities, as a preset or file asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from sparseflow.cli.asked import Asked, overview_table
from sparseflow.search import Search, SearchSpec, quests
from sparseflow.study import DataCache, Estimator, FactsBook, RunSpec, facts_of, validate


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
