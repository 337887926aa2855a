"""`sparseflow reproduce`: tables and figures of the papers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from sparseflow.cli.asked import Asked
from sparseflow.cli.compare import carry_out, tell
from sparseflow.cli.kinds import asked_for
from sparseflow.cli.progress import Reading, counting, duration
from sparseflow.cli.setup import Workers, surroundings_for
from sparseflow.core import BadData, BadValue, SparseflowError, cores
from sparseflow.data import check_name
from sparseflow.report import Study
from sparseflow.report.blocks import Block
from sparseflow.reproduce.analyses import analyses, effort_of
from sparseflow.reproduce.assess import needs_runs
from sparseflow.reproduce.estimate import choose
from sparseflow.reproduce.experiment import Experiment, Part, experiment
from sparseflow.reproduce.items import Item, item_named
from sparseflow.reproduce.ledger import record, records
from sparseflow.reproduce.makers import makers
from sparseflow.reproduce.page import study_folder, write_item
from sparseflow.reproduce.scale import STAND_INS, Scale, minutes_of, scale_named
from sparseflow.reproduce.scoreboard import scoreboard
from sparseflow.reproduce.shrink import shrunk
from sparseflow.reproduce.source import Source
from sparseflow.reproduce.specs import specification
from sparseflow.reproduce.words import rules_in_words
from sparseflow.reproduce.work import Work, together, work_of, work_of_looking
from sparseflow.study import DataCache, Estimator, RunSpec, Store, Surroundings, has_results, store_of
from sparseflow.study.sections import DataSpec

_TIMING_S = 8.0
"""Of the steps that are timed for one rung of the ladder, beside one kind of every size."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        scale: full, medium, small, a rung of the ladder, or minutes=N.
        data: in place of the paper's data set.
        keep: folder of records, into which what was found is written; None for none.
    """

    item: str
    scale: str = "small"
    data: str | None = None
    keep: Path | None = None


class _Reproduction:
    """An item at hand: its experiment, its data and, once chosen, its scale."""

    def __init__(self, wish: Wish, surroundings: Surroundings, cache: DataCache) -> None:
        self.wish, self.surroundings, self.cache = wish, surroundings, cache
        self.item: Item = item_named(wish.item)
        if wish.data is not None:
            check_name(wish.data)
        self.experiment: Experiment = experiment(self.item.id)
        self._asked: dict[Scale, list[Asked]] = {}
        self._facts: dict[str, tuple[int, int, tuple[int, ...], int]] = {}

    def shape(self, name: str) -> tuple[int, int, tuple[int, ...], int]:
        """Training and test examples, shape of an input and classes of a data set at hand."""
        if name not in self._facts:
            try:
                data = self.cache.dataset(DataSpec(name=name))
            except SparseflowError as error:
                raise BadData(
                    f"{self.item.id}: {error} Or train on other data: --data digits needs no files."
                ) from None
            self._facts[name] = (len(data.train), len(data.test), data.input_shape, data.classes)
        return self._facts[name]

    def _sizes(self, name: str) -> tuple[int, int, int]:
        train, test, shape, _ = self.shape(self.wish.data or name)
        return train, test, prod(shape)

    def content(self, part: Part, scale: Scale) -> dict[str, Any]:
        """A study's specification at a scale."""

        def sizes(name: str) -> tuple[int, int, int]:
            return self._sizes(name if scale.full else STAND_INS.get(name, name))

        return shrunk(part.content, scale, sizes, self.wish.data)

    def asked(self, scale: Scale) -> list[Asked]:
        """Its studies, ready to be carried out."""
        if scale not in self._asked:
            self._asked[scale] = [asked_for(self.content(part, scale), self.cache) for part in self.experiment.parts]
        return self._asked[scale]

    def seconds(self, scale: Scale, jobs: int) -> float:
        """Estimated wall time, but for drawing the page."""
        runs = self.runs(scale)
        estimator = Estimator(self.surroundings, self.cache, _TIMING_S)
        training = estimator.seconds(runs) / min(jobs, len(runs))
        gradients = self._gradients(scale, len(runs))
        if not gradients:
            return training
        kinds = {(run.model.model_dump_json(), run.mask.model_dump_json()): run for run in reversed(runs)}
        return training + gradients * fmean(estimator.gradient_s(run) for run in kinds.values())

    def _gradients(self, scale: Scale, runs: int) -> float:
        """What the analysis of its networks takes, in gradients of one example."""
        name = self.experiment.analyses
        return 0.0 if name is None else effort_of(name, self.experiment.options, scale, runs)

    def runs(self, scale: Scale) -> list[RunSpec]:
        """All that it takes."""
        kinds = (part.kind for part in self.experiment.parts)
        return together(zip(kinds, (asked.expected for asked in self.asked(scale)), strict=True))

    def work(self, scale: Scale) -> Work:
        """The arithmetic of it."""
        runs = self.runs(scale)
        return work_of(runs, self.shape) + work_of_looking(self._gradients(scale, len(runs)), runs, self.shape)


def run_reproduction(
    console: Console,
    wish: Wish,
    out: Path | None,
    workers: Workers,
    data_root: str | None,
    device: str,
    checkpoint_every: float,
    *,
    dry_run: bool,
) -> None:
    """Run what an item of a paper needs and write its page."""
    minutes = minutes_of(wish.scale)
    scale = None if minutes is not None else scale_named(wish.scale)
    workers.gpus(device)
    elsewhere = workers.ray is not None and not dry_run
    surroundings = surroundings_for(Path(), data_root, device, checkpoint_every, keep=False, elsewhere=elsewhere)
    jobs = workers.jobs or cores()
    with Reading(console) as watch:
        cache = DataCache(replace(surroundings, device="cpu") if elsewhere else surroundings, watch)
        it = _Reproduction(wish, surroundings, cache)
        if it.experiment.lacks:
            console.print(f"note: {it.experiment.lacks}")
    if not needs_runs(it.experiment):
        _untrained(console, it, scale or scale_named("small"), out)
        return
    if minutes is not None:
        scale = _chosen(console, it, minutes, jobs)
    assert scale is not None
    for rule in rules_in_words(scale, it.experiment, wish.data):
        console.print(rule)
    if dry_run:
        runs = it.runs(scale)
        console.print(f"{len(runs):,} runs; estimated {duration(it.seconds(scale, jobs))} with {_workers(jobs)}")
        return
    out = out or Path("runs") / "reproduce" / _folder(scale, wish.data)
    place = out / it.item.id
    failed: list[SparseflowError] = []
    complete = False
    try:
        for asked, part in zip(it.asked(scale), it.experiment.parts, strict=True):
            for note in asked.notes:
                console.print(f"note: {note}")
            folder = _store_folder(out, asked, part)
            there = replace(surroundings, checkpoints=folder / "checkpoints", keep=bool(it.experiment.analyses))
            try:
                tell(console, carry_out(console, asked, folder, workers, there, lambda store: None))
            except SparseflowError as error:
                if type(error) is not SparseflowError:
                    raise
                failed.append(error)  # some runs failed: the page says which, and other studies go on
        complete = True
    finally:
        page = _page(console, it, scale, out, place, complete=complete)
        if page is not None:
            console.print(f"report: {page}")
    if failed:
        raise failed[0]


def _workers(jobs: int) -> str:
    return f"{jobs} worker{'s' if jobs > 1 else ''}"


def _folder(scale: Scale, data: str | None) -> str:
    return f"scale-{scale.name}" + (f"-{Path(data).stem}" if data else "")


def _store_folder(out: Path, asked: Asked, part: Part) -> Path:
    """Items of one kind share a store, for the same runs are in many; not searches, which decide by what is there."""
    return out / (asked.study[0] if part.kind == "search" else part.kind)


def _chosen(console: Console, it: _Reproduction, minutes: float, jobs: int) -> Scale:
    with console.status("timing a few steps at every scale that may fit"):
        chosen = choose(minutes, lambda s: it.seconds(s, jobs), lambda s: it.work(s).gflops)
    words = f"scale {chosen.scale.name}: estimated {duration(chosen.seconds)} with {_workers(jobs)}"
    if chosen.seconds > 60 * minutes:
        words += f", more than {minutes:g} min, but there is no smaller scale"
    console.print(words)
    return chosen.scale


def _page(console: Console, it: _Reproduction, scale: Scale, out: Path, place: Path, *, complete: bool) -> Path | None:
    """Write the page from the studies that there are; None before the first.

    Args:
        complete: the runs have ended, so that their networks can be looked at.
    """
    stores = {}
    sources = []
    try:
        parts = it.experiment.parts
        for number, (asked, part) in enumerate(zip(it.asked(scale), parts, strict=True)):
            folder = _store_folder(out, asked, part)
            if folder not in stores:
                if not has_results(folder):
                    continue
                stores[folder] = store_of(folder)
            kept = {name: (kind, content) for name, kind, content in stores[folder].studies()}
            if asked.study[0] not in kept:
                continue
            kind, content = kept[asked.study[0]]
            study = Study(asked.study[0], content, stores[folder], study_folder(place, number, len(parts)), folder)
            sources.append(Source(it.experiment, part, study, kind))
        if not sources:
            return None
        place.mkdir(parents=True, exist_ok=True)
        made: list[Block] = []
        if complete and it.experiment.analyses is not None:
            look = analyses[it.experiment.analyses]
            with counting(f"looking at the networks of {it.item.id}") as progress:
                made = look(sources, it.experiment.options, scale, place, it.surroundings, progress)
        with counting(f"drawing the page of {it.item.id}") as progress:
            page, found, figures = write_item(
                it.item, it.experiment, sources, scale, place, data=it.wish.data, made=made, progress=progress
            )
        if it.wish.keep is not None:
            rules = rules_in_words(scale, it.experiment, it.wish.data)
            kept_at = record(it.wish.keep, found, sources, scale, rules, figures, it.wish.data)
            console.print(f"recorded in {kept_at}")
        return page
    finally:
        for store in stores.values():
            store.close()


def _untrained(console: Console, it: _Reproduction, scale: Scale, out: Path | None) -> None:
    """An item that needs no run: drawn by a maker, or a table of settings, which are those of the full scale."""
    if it.experiment.parts:
        scale = scale_named("full")
    place = (out or Path("runs") / "reproduce" / _folder(scale, None)) / it.item.id
    made: list[Block] = []
    if it.experiment.makes is not None:
        with counting(f"drawing {it.item.id}") as progress:
            made = makers[it.experiment.makes](it.experiment.options, scale, place, progress)
    with TemporaryDirectory() as aside:
        store = Store(aside, create=True)  # of studies whose specification alone is looked at
        sources = []
        for part in it.experiment.parts:
            kind, spec = specification(part.content)
            study = Study(spec.study_name, {"spec": spec.changes(), "facts": {}}, store, place)
            sources.append(Source(it.experiment, part, study, kind))
        page, found, figures = write_item(it.item, it.experiment, sources, scale, place, made=made)
        if it.wish.keep is not None:
            record(it.wish.keep, found, [], scale, rules_in_words(scale, it.experiment), figures)
        store.close()
    console.print(f"report: {page}")


def write_scoreboard(console: Console, folder: Path, to: Path) -> None:
    """The scoreboard of the records in a folder, as Markdown.

    Raises:
        BadValue: for a folder without records.
    """
    found = records(folder)
    if not found:
        raise BadValue(f"{folder} holds no records; `sparseflow reproduce ITEM --record {folder}` makes one")
    to.write_text(scoreboard(found), encoding="utf-8")
    console.print(f"{len(found)} items recorded; scoreboard: {to}")
