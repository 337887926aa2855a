"""Studies in small, trained in this process, as the sources of an experiment."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict

from sparseflow.report import Study
from sparseflow.reproduce.experiment import Experiment, Part
from sparseflow.reproduce.source import Source
from sparseflow.study import (
    ArmsSpec,
    CompareSpec,
    DataCache,
    FactsBook,
    Store,
    Surroundings,
    arms_of,
    cells,
    execute_group,
    facts_of,
    first_runs,
    legacy,
    runs_of,
    validate,
    with_predecessors,
)


def trained(content, folder):
    """Train a study of arms into a folder, with its measurements and networks; its specification."""
    spec = validate(ArmsSpec, content)
    cache = DataCache(Surroundings())
    book = FactsBook.of((arm.points[0].spec for arm in arms_of(spec)), cache)
    _carry_out([with_predecessors(first_runs(spec, arms_of(spec)))], cache, folder, spec, ("arms", book.dump()))
    return spec


def trained_pairs(content, folder):
    """Train a comparison of pairs into a folder; its specification."""
    spec = validate(CompareSpec, content)
    cache = DataCache(Surroundings())
    facts = facts_of(spec, cache)
    _carry_out([[run] for run in runs_of(cells(spec, facts))], cache, folder, spec, ("compare", asdict(facts)))
    return spec


def _carry_out(groups, cache, folder, spec, study):
    """Train groups of runs, those of one with each other where they are alike."""
    folder.mkdir(parents=True)
    store = Store(folder, create=True)
    for runs in groups:
        where = Surroundings(checkpoints=folder / "checkpoints", legacy=legacy(runs), keep=True)
        for run, result in execute_group(runs, where, cache, lambda run, rows: store.put_metrics(run.name, rows)):
            assert result.status == "finished", result.error
            store.start_run(run)
            store.put_result(run, result)
    kind, facts = study
    store.put_study(spec.study_name, kind, {"spec": spec.changes(), "facts": facts})
    store.close()


@contextmanager
def source_of(spec, folder, labels=None, **fields):
    """A trained study as a source of an experiment with these fields."""
    store = Store(folder)
    try:
        (content,) = (content for name, _, content in store.studies() if name == spec.study_name)
        kind = "arms" if isinstance(spec, ArmsSpec) else "pairs"
        part = Part(labels or {}, {"kind": kind, **spec.changes()})
        experiment = Experiment("003.table5", (part,), **fields)
        yield Source(experiment, part, Study(spec.study_name, content, store, folder), kind)
    finally:
        store.close()
