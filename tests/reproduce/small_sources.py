"""Studies of arms in small, trained in this process, as the sources of an experiment."""

from __future__ import annotations

from contextlib import contextmanager

from sparseflow.report import Study
from sparseflow.reproduce.experiment import Experiment, Part
from sparseflow.reproduce.source import Source
from sparseflow.study import (
    ArmsSpec,
    DataCache,
    FactsBook,
    Store,
    Surroundings,
    arms_of,
    execute_group,
    first_runs,
    legacy,
    validate,
    with_predecessors,
)


def trained(content, folder):
    """Train a study of arms into a folder, with its measurements and networks; its specification."""
    spec = validate(ArmsSpec, content)
    cache = DataCache(Surroundings())
    runs = with_predecessors(first_runs(spec, arms_of(spec)))
    book = FactsBook.of((arm.points[0].spec for arm in arms_of(spec)), cache)
    where = Surroundings(checkpoints=folder / "checkpoints", legacy=legacy(runs), keep=True)
    folder.mkdir(parents=True)
    store = Store(folder, create=True)
    for run, result in execute_group(runs, where, cache, lambda run, rows: store.put_metrics(run.name, rows)):
        assert result.status == "finished", result.error
        store.start_run(run)
        store.put_result(run, result)
    store.put_study(spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()})
    store.close()
    return spec


@contextmanager
def source_of(spec, folder, labels=None, **fields):
    """A trained study as a source of an experiment with these fields."""
    store = Store(folder)
    try:
        (content,) = (content for name, _, content in store.studies() if name == spec.study_name)
        part = Part(labels or {}, {"kind": "arms", **spec.changes()})
        experiment = Experiment("003.table5", (part,), **fields)
        yield Source(experiment, part, Study(spec.study_name, content, store, folder), "arms")
    finally:
        store.close()
