"""004's study of tickets in small, trained in this process and compared by the command's own step."""

from __future__ import annotations

from contextlib import contextmanager

from finished_runs import base, train_all
from sparseflow.cli.kinds import arms as ask_arms
from sparseflow.study import (
    ArmsSpec,
    DataCache,
    FactsBook,
    Store,
    Surroundings,
    arms_of,
    first_runs,
    likened,
    likeness_asked,
    reload,
    validate,
)

SEEDS = [1, 2, 3]
ARMS = ["ticket", "scratch", "own inits", "restart", "pruned"]


def content(npz, **likeness):
    """The specification; `likeness` is laid over its own."""
    heir = {"run": "pruned", "seed": 0}
    arms = {
        "ticket": {"mask": {"inherited": {**heir, "weights": "rewound"}}},
        "scratch": {"mask": {"inherited": heir}, "init": {"seed": 0}},
        "own inits": {"mask": {"inherited": heir}},
        "restart": {"mask": {"inherited": {**heir, "weights": "final"}}},
        "pruned": {"mask": {"density": 0.2, "gradual": {"start": 2, "end": 8, "every": 2}}},
        "dense": {},
    }
    own = {
        "reference": "pruned", "arms": ARMS, "points": 3, "examples": 60, "path_examples": 50,
        "claims": {"ticket": "ticket", "scratch": ["scratch", "own inits"], "pruned": "pruned"},
    }  # fmt: skip
    return {"base": base(npz), "seeds": SEEDS, "arms": arms, "likeness": {**own, **likeness}}


@contextmanager
def silent(what):
    yield lambda done, total: None


class Study:
    """A folder of it."""

    def __init__(self, folder, npz, **likeness):
        self.folder, self.content = folder, content(npz, **likeness)
        self.spec = validate(ArmsSpec, self.content)
        self.arms = arms_of(self.spec)
        self.cache = DataCache(Surroundings())
        self.facts = FactsBook.of((arm.points[0].spec for arm in self.arms), self.cache)

    def train(self):
        entry = (self.spec.study_name, "arms", {"spec": self.spec.changes(), "facts": self.facts.dump()})
        train_all(first_runs(self.spec, self.arms), self.folder, entry)
        return self

    def compare(self):
        """Whether there was anything to do."""
        store = Store(self.folder)
        try:
            return ask_arms(self.content, self.cache).compare(store, self.folder, silent)
        finally:
            store.close()

    def found(self):
        store = Store(self.folder)
        try:
            results = store.results()
        finally:
            store.close()
        what = likeness_asked(self.spec, self.arms, results, self.facts, self.folder)
        return what, likened(self.spec, what, results, self.folder)

    def nets(self, at="final"):
        """Label -> network."""
        what, _ = self.found()
        runs = [what.reference, *(run for group in what.groups for run in group.runs)]
        return {run.label: reload(run.moved(at), self.cache) for run in runs}
