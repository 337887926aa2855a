"""`sparseflow bench step`: one optimisation step, masked against compact against dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan

from sparseflow.bench.memory import peak_mib
from sparseflow.bench.networks import Step, StepCase, make_step
from sparseflow.bench.rivals import Missing, label
from sparseflow.bench.timing import SETTLING, Row, fastest, interleaved, median_and_spread, thread_limit, threads_text
from sparseflow.core import BadValue
from sparseflow.train import resolve_implementation

DENSE_WIDTH = 308
RESNET_DENSITY = 0.05
TURN_MS = 100.0
"""How long an implementation goes on in its turn, in ms: some steps of a loop, whatever the caches held before."""


def names_for(model: str) -> tuple[str, ...]:
    """The implementations whose steps are timed: the twin is the perceptron's, the dense network the ResNet's rival."""
    return ("masked", "compact", "twin") if model == "mlp" else ("masked", "compact", "dense")


def step_cases(
    model: str = "mlp",
    optimizers: Sequence[str] = ("sgd", "adam"),
    *,
    dense_width: int | None = None,
    density: float | None = None,
    batch: int = 128,
    depth: int = 4,
    implementation: str = "auto",
) -> list[StepCase]:
    """One case for each optimiser.

    Args:
        dense_width: of the perceptron's twin; 308 unless a density is given.
        density: by default 0.05 for a ResNet, whose 3x3 convolutions but the first it holds for.

    Raises:
        BadValue: for an impossible case.
    """
    if model != "mlp" and density is None and dense_width is None:
        density = RESNET_DENSITY
    elif density is None and dense_width is None:
        dense_width = DENSE_WIDTH
    return [
        StepCase(
            model,
            dense_width,
            density,
            name,
            implementation,
            classes=100 if model == "mlp" else 10,
            depth=depth,
            batch=batch,
        )
        for name in optimizers
    ]


def bench_step(
    cases: Sequence[StepCase],
    names: Sequence[str] = (),
    *,
    rounds: int = 15,
    threads: int = 1,
    memory: bool = True,
    report: Callable[[str], None] = lambda what: None,
    note: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Median time of one step: zero_grad, forward, loss, backward, masking, optimiser.

    All implementations of a case run in turn in this process, each some steps (`TURN_MS`); peak memory is taken in a
    fresh process for each, and building the network counts. torch's own networks on images run in both memory formats,
    and the faster one stands.

    Args:
        names: of implementations (see `networks.make_step`); by default `names_for` the model.
        report: told what is being measured.
        note: told of each implementation that is not here.

    Raises:
        BadValue: for fewer than two rounds, or where no implementation is left.
    """
    if rounds < 2:
        raise BadValue(f"rounds must be at least 2, got {rounds}")
    rows = []
    for case in cases:
        how = resolve_implementation(case.optimizer, case.implementation)
        calls, places = _calls(case, names or names_for(case.model), report, note)
        report(f"{case.title}: timing")
        with thread_limit(threads):
            times = interleaved(calls, rounds, turn_ms=TURN_MS, settling=SETTLING)
        del calls
        for full in fastest(times, {full: name for full, (name, _) in places.items()}):
            name, form = places[full]
            peak = nan
            if memory:
                report(f"{case.title}: memory of {full}")
                peak = peak_mib(make_step, (name, case, form), (name, case.small(), form), threads=threads)
            title = f"{case.title} ({how}), {threads_text(threads)}"
            rows.append(Row(title, full, *median_and_spread(times[full]), peak))
    return rows


def _calls(
    case: StepCase, names: Sequence[str], report: Callable[[str], None], note: Callable[[str], None]
) -> tuple[dict[str, Step], dict[str, tuple[str, str]]]:
    """Label -> step, and label -> (implementation, form)."""
    calls: dict[str, Step] = {}
    places: dict[str, tuple[str, str]] = {}
    for name in names:
        formats = ("contiguous", "channels-last") if case.model != "mlp" and name != "compact" else ("",)
        for form in formats:
            report(f"{case.title}: building {name}")
            try:
                calls[label(name, form)] = make_step(name, case, form)
            except Missing as missing:
                note(str(missing))
                break
            places[label(name, form)] = (name, form)
    if not calls:
        raise BadValue(f"{case.title}: none of {', '.join(names)} is here and can do it; try masked")
    return calls, places
