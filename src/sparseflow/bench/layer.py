"""`sparseflow bench layer`: forward and both backward products of one layer, through autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import nan

from sparseflow.bench.cases import LayerCase
from sparseflow.bench.memory import peak_mib
from sparseflow.bench.rivals import Missing, forms_for, implementations, label, timed_call
from sparseflow.bench.timing import SETTLING, Row, fastest, interleaved, median_and_spread, thread_limit, threads_text
from sparseflow.core import BadValue

Shape = tuple[int, int, int]
"""(inputs, outputs, side of the image or 0)."""

DENSITIES: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CONV_DENSITIES: tuple[float, ...] = (0.02, 0.05, 0.1)
LINEAR: tuple[Shape, ...] = ((3076, 3076, 0),)
SMALL_LINEAR: tuple[Shape, ...] = ((784, 788, 0), (512, 512, 0))
CONVS: tuple[Shape, ...] = ((16, 16, 32), (32, 32, 16), (64, 64, 8), (160, 160, 32), (320, 320, 16), (640, 640, 8))
"""The 3x3 layers of ResNet-32, then those of WRN-28-10."""

TURN_MS = 50.0
"""A turn of one implementation lasts at least about this long."""


def layer_cases(
    shapes: Iterable[Shape] = (),
    batches: Sequence[int] = (),
    densities: Sequence[float] = (),
    *,
    everything: bool = False,
) -> list[LayerCase]:
    """Every shape with every batch size and density, in this order.

    Args:
        shapes: by default the comparison's widest layer.
        batches: 128 by default.
        densities: by default `DENSITIES`, for convolutions `CONV_DENSITIES`.
        everything: what the project's claims are about - the wide layer, small ones at three batch sizes and up to a
            density of 0.2, and the convolutions; `batches` and `densities`, where given, hold for all of them.

    Raises:
        BadValue: for shapes together with `everything`, or a case that makes no layer.
    """
    shapes = list(shapes)
    if everything and shapes:
        raise BadValue("--all has its own shapes; leave out --linear and --conv, or --all")
    if everything:
        groups = [(LINEAR, (128,), DENSITIES), (SMALL_LINEAR, (32, 128, 512), DENSITIES[:-1])]
        groups.append((CONVS, (128,), CONV_DENSITIES))
    else:
        groups = [((shape,), (128,), CONV_DENSITIES if shape[2] else DENSITIES) for shape in shapes or LINEAR]
    return [
        LayerCase(*shape, batch, density)
        for some, usual_batches, usual_densities in groups
        for shape in some
        for batch in batches or usual_batches
        for density in densities or usual_densities
    ]


def bench_layer(
    cases: Sequence[LayerCase],
    names: Sequence[str] = (),
    *,
    rounds: int = 15,
    threads: int = 1,
    memory: bool = True,
    report: Callable[[str], None] = lambda what: None,
    note: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Median time and peak memory of each implementation on each case, the implementations in turn in this process.

    Peak memory is that of the layer, its batch and its gradients, taken in a fresh process; what building takes in
    passing is not counted.

    Args:
        names: of `implementations`; all by default.
        report: told what is being measured.
        note: told, once, of each implementation that is not here, and how to get it.

    Raises:
        BadValue: for fewer than two rounds, or where no implementation is left.
        UnknownName: for an implementation that is not in the catalog.
    """
    if rounds < 2:
        raise BadValue(f"rounds must be at least 2, got {rounds}")
    wanted = [implementations.entry(name).name for name in names] or implementations.names
    rows: list[Row] = []
    told: set[str] = set()
    for number, case in enumerate(cases, start=1):
        where = f"case {number} of {len(cases)}, {case.title}"
        calls: dict[str, Callable[[], object]] = {}
        places: dict[str, tuple[str, str]] = {}
        for name in wanted:
            for form in forms_for(name, case):
                report(f"{where}: building {label(name, form.name)}")
                try:
                    calls[label(name, form.name)] = timed_call(name, form.name, case)
                except Missing as missing:
                    if str(missing) not in told:
                        note(str(missing))
                    told.add(str(missing))
                    continue
                places[label(name, form.name)] = (name, form.name)
        if not calls:
            raise BadValue(
                f"{case.title}: none of {', '.join(wanted)} is here and can do it; "
                f"try {', '.join(name for name in implementations.names if forms_for(name, case))}"
            )
        report(f"{where}: timing")
        with thread_limit(threads):  # after building, which loads the rivals' libraries
            times = interleaved(calls, rounds, turn_ms=TURN_MS, settling=SETTLING)
        del calls
        for full in fastest(times, {full: name for full, (name, _) in places.items()}):
            name, form_name = places[full]
            peak = nan
            if memory:
                report(f"{where}: memory of {full}")
                peak = layer_peak(name, form_name, case, threads)
            rows.append(Row(f"{case.title}, {threads_text(threads)}", full, *median_and_spread(times[full]), peak))
    return rows


def layer_peak(name: str, form: str, case: LayerCase, threads: int = 1) -> float:
    """Peak memory in MiB of one implementation of one layer."""
    # A small layer of the same kind loads what loads on first use; 20 units, which every form can do.
    small = replace(case, into=20, out=20, side=min(case.side, 8), batch=16, density=0.5)
    return peak_mib(timed_call, (name, form, case), (name, form, small), threads=threads, building=False)
