"""Which run begins with what another one leaves: the rounds of a lottery, and masks inherited from any run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from sparseflow.study.spec import RunSpec


def predecessor(spec: RunSpec) -> RunSpec | None:
    """The run that must have ended before this one can begin."""
    return _parent(spec) if spec.mask.inherited is not None else _round_before(spec)


def _parent(spec: RunSpec) -> RunSpec:
    inherited = spec.mask.inherited
    assert inherited is not None
    seed = spec.seed if inherited.seed is None else inherited.seed
    return _parsed(json.dumps(inherited.run)).model_copy(update={"seed": seed})


@lru_cache(maxsize=1024)
def _parsed(run: str) -> RunSpec:
    return RunSpec.model_validate_json(run)


def _round_before(spec: RunSpec) -> RunSpec | None:
    lottery = spec.mask.lottery
    if lottery is None or lottery.round == 0:
        return None
    before = lottery.model_copy(update={"round": lottery.round - 1, "weights": "rewound"})
    # Not reached by the round before, the target is none of its business.
    mask = spec.mask.model_copy(
        update={"lottery": before, "density": None, "budget": None, "shuffle": False, "execution": "auto"}
    )
    return spec.model_copy(update={"mask": mask})


def first_round(spec: RunSpec) -> RunSpec:
    """Round 0 of the run's lottery, whose weights later rounds go back to; the run itself if it is of none."""
    while (before := _round_before(spec)) is not None:
        spec = before
    return spec


def with_predecessors(runs: Iterable[RunSpec]) -> list[RunSpec]:
    """The runs, each once, and all that must have ended before them."""
    found: dict[str, RunSpec] = {}
    for run in runs:
        chain = [run]
        while (before := predecessor(chain[-1])) is not None:
            chain.append(before)
        found |= {spec.name: spec for spec in reversed(chain)}
    return list(found.values())


def rewound_to(spec: RunSpec) -> tuple[RunSpec, int] | None:
    """The run and its step whose weights this one starts from; None if it draws its own."""
    inherited, lottery = spec.mask.inherited, spec.mask.lottery
    if inherited is not None and inherited.weights == "rewound":
        return _parent(spec), inherited.rewind_step
    if lottery is not None and lottery.round > 0 and lottery.weights == "rewound":
        return first_round(spec), lottery.rewind_step
    return None


def draws_weights(spec: RunSpec) -> bool:
    """Whether a run begins with a draw of its own, and not with weights that another one leaves."""
    inherited = spec.mask.inherited
    return rewound_to(spec) is None and (inherited is None or inherited.weights == "fresh")


Legacy = Mapping[str, frozenset[int]]
"""Run name -> steps whose weights other runs go back to; for every run that others begin with."""


def legacy(runs: Iterable[RunSpec]) -> dict[str, frozenset[int]]:
    """What runs must leave so that those among `runs` that begin with them can."""
    found: dict[str, frozenset[int]] = {}
    for run in runs:
        if (before := predecessor(run)) is not None:
            found.setdefault(before.name, frozenset())
        if (start := rewound_to(run)) is not None:
            found[start[0].name] = found.get(start[0].name, frozenset()) | {start[1]}
    return found
