"""What is known of a run's data, kept with its study so that neither the analysis nor the report needs the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from sparseflow.study.run import DataCache
from sparseflow.study.spec import RunSpec


@dataclass(frozen=True)
class DataFacts:
    """What an analysis must know of a data set."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    train_size: int
    test_size: int
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def input_size(self) -> int:
        return prod(self.input_shape)


FactsOf = Callable[[RunSpec], DataFacts]
"""The facts of the data that a run trains on."""


def facts_of(spec: RunSpec, cache: DataCache) -> DataFacts:
    """What is known of the run's data."""
    dataset = cache.dataset(spec.data)
    data = cache.prepared(spec)
    return DataFacts(
        dataset.name,
        dataset.input_shape,
        dataset.classes,
        len(data.train),
        len(data.test),
        dataset.digest,
        dataset.notes,
    )


class FactsBook:
    """The facts of every data section among the runs of a study, whose runs may train on different data."""

    def __init__(self, facts: Mapping[str, DataFacts]) -> None:
        self._facts = facts

    @classmethod
    def of(cls, specs: Iterable[RunSpec], cache: DataCache) -> FactsBook:
        """Read from the data themselves."""
        different = {_section(spec): spec for spec in specs}
        return cls({section: facts_of(spec, cache) for section, spec in different.items()})

    @classmethod
    def load(cls, content: Mapping[str, Mapping[str, Any]]) -> FactsBook:
        """From what `dump` gave."""
        return cls({section: DataFacts(**facts) for section, facts in content.items()})

    def dump(self) -> dict[str, dict[str, Any]]:
        return {section: asdict(facts) for section, facts in self._facts.items()}

    def __call__(self, spec: RunSpec) -> DataFacts:
        return self._facts[_section(spec)]

    def different(self) -> list[DataFacts]:
        """Each once: sections may differ in what leaves the examples as they are."""
        return list({repr(facts): facts for facts in self._facts.values()}.values())


def _section(spec: RunSpec) -> str:
    # Without defaults, so that a field added later leaves the facts of a stored study where they are.
    return spec.data.model_dump_json(exclude_defaults=True)
