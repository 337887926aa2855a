"""Spectra of Hessians: around changes of masks, and along a training (004 Fig. 10 and 11b)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparseflow.measure.probes import OF_A_PRODUCT, PRODUCTS
from sparseflow.report import HESSIAN_HEADER, hessian_cells
from sparseflow.report.blocks import Block, Table, Text
from sparseflow.report.hessian_figure import spectrum_figure
from sparseflow.reproduce.analyses.again import Wanted, load, on_the_way, step_after, total_steps
from sparseflow.reproduce.analyses.networks import Named, finished_runs, made_with, parts_of
from sparseflow.reproduce.analyses.registry import OF_FLOAT64, analyses
from sparseflow.reproduce.scale import Scale, at_most
from sparseflow.reproduce.source import Source
from sparseflow.study import Curvature, Curved, DataCache, Loaded, PartFile, Surroundings, curved, reload

_CAPTION = (
    "Of the loss on the same training examples, over the active weights alone. An eigenvalue ± its residual "
    "|H v - value v|. Trace and the share of eigenvalues below 0 (by more than a thousandth of the largest "
    "|eigenvalue|) are estimates of quadrature ± their standard errors over probes."
)
_NONE = "No run has ended yet."


def _effort_of_one(options: Mapping[str, Any], scale: Scale) -> float:
    """Of one network: gradients of one example."""
    examples, how = _wanted(options, scale)
    return (PRODUCTS + how.probes * how.steps) * OF_A_PRODUCT * OF_FLOAT64 * examples


def _effort_of_updates(options: Mapping[str, Any], scale: Scale, runs: int) -> float:
    return 2 * len(options["at"]) * _effort_of_one(options, scale)


def _effort_of_spectra(options: Mapping[str, Any], scale: Scale, runs: int) -> float:
    return len(options["arms"]) * len(options["at"]) * _effort_of_one(options, scale)


@analyses.add("updates", cite="004 Fig. 10", effort=_effort_of_updates)
def updates(
    sources: Sequence[Source],
    options: Mapping[str, Any],
    scale: Scale,
    folder: Path,
    surroundings: Surroundings,
    progress: Callable[[int, int], None],
) -> list[Block]:
    """Spectral density of the Hessian just before and after changes of masks, a figure for each.

    The first seed's run is trained again, as far as the last of the changes.

    Options: `arm`; `at`, parts of the training, of which the first change at or after each is taken; `examples`,
    `probes` and `steps` of the quadrature.
    """
    named = next((one for one in finished_runs(sources) if one.arm == options["arm"]), None)
    if named is None:
        return [Text(_NONE)]
    look = _Look(options, scale, surroundings, folder)
    kept = on_the_way(named.run, Wanted(updates=options["at"]), look.cache, surroundings, folder)
    blocks: list[Block] = []
    every: list[Curved] = []
    with parts_of(folder) as parts:
        for number, (before, after) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            nets = [
                load(named.run, one, f"{one.moment} step {one.step}", look.cache, surroundings.device)
                for one in (before, after)
            ]
            pair = look.all(nets, parts, progress, 2 * number, len(kept))
            figure = spectrum_figure(pair, folder / "figures", f"spectrum-step{before.step}")
            blocks.append(replace(figure, title=f"{named.name}: the update at step {before.step}"))
            every += pair
    if not blocks:
        return [Text(f"{named.name}: no masks change at or after the parts of the training that were asked for.")]
    return [*blocks, Table("The Hessian around updates", _CAPTION, HESSIAN_HEADER, list(hessian_cells(every)))]


@analyses.add("spectra", cite="004 Fig. 11b", effort=_effort_of_spectra)
def spectra(
    sources: Sequence[Source],
    options: Mapping[str, Any],
    scale: Scale,
    folder: Path,
    surroundings: Surroundings,
    progress: Callable[[int, int], None],
) -> list[Block]:
    """Spectral density of the Hessian along trainings, a figure for each moment with a line for each arm.

    The first seed's runs are looked at; for moments between start and end they are trained again so far.

    Options: `arms`, in their order; `at`, parts of the training from 0 (the start) to 1 (the end); `examples`, `probes`
    and `steps` of the quadrature.
    """
    first: dict[str, Named] = {}
    for named in finished_runs(sources):
        first.setdefault(named.arm, named)
    chosen = [first[arm] for arm in options["arms"] if arm in first]
    if not chosen:
        return [Text(_NONE)]
    look = _Look(options, scale, surroundings, folder)
    blocks: list[Block] = []
    every: list[Curved] = []
    moments = [float(part) for part in options["at"]]
    between = [part for part in moments if 0.0 < part < 1.0]
    with parts_of(folder) as parts:
        for number, part in enumerate(moments):
            nets = [look.at(named, part, between) for named in chosen]
            words = {0.0: "at the start", 1.0: "at the end"}.get(part, f"after {100 * part:g} % of the training")
            found = look.all(nets, parts, progress, number * len(nets), len(moments) * len(nets))
            figure = spectrum_figure(found, folder / "figures", f"spectrum-{100 * part:g}")
            blocks.append(replace(figure, title=f"Density of the Hessian's eigenvalues {words}"))
            every += [replace(one, label=f"{one.label}, {words}") for one in found]
    return [*blocks, Table("The Hessian along training", _CAPTION, HESSIAN_HEADER, list(hessian_cells(every)))]


def _wanted(options: Mapping[str, Any], scale: Scale) -> tuple[int, Curvature]:
    """On how many training examples, and what to find out."""
    probes, steps = int(options.get("probes", 10)), int(options.get("steps", 80))
    if scale.points is not None:
        probes, steps = min(probes, scale.points), min(steps, 10 * scale.points)
    return at_most(int(options["examples"]), scale.examples), Curvature(probes=probes, steps=steps, top=1, bottom=1)


class _Look:
    """How networks are looked at."""

    def __init__(self, options: Mapping[str, Any], scale: Scale, surroundings: Surroundings, folder: Path) -> None:
        self.cache = DataCache(surroundings)
        self._surroundings, self._folder = surroundings, folder
        self._examples, self._how = _wanted(options, scale)

    def at(self, named: Named, part: float, between: Sequence[float]) -> Loaded:
        """The network of a run after a part of its training, under the arm's name."""
        run = replace(named.run, label=named.name)
        if part in (0.0, 1.0):
            return reload(replace(run, at="start" if part == 0.0 else "final"), self.cache, self._surroundings.device)
        kept = on_the_way(run, Wanted(parts=between), self.cache, self._surroundings, self._folder)
        step = step_after(part, total_steps(run, self.cache))
        one = next(one for one in kept if one.step == step)
        return load(run, one, named.name, self.cache, self._surroundings.device)

    def all(
        self,
        nets: Sequence[Loaded],
        parts: PartFile,
        progress: Callable[[int, int], None],
        done: int,
        total: int,
    ) -> list[Curved]:
        """Their curvature, on training examples."""
        found = []
        for number, net in enumerate(nets, 1):
            batches = net.sample("train", self._examples)
            found.append(curved(net, batches, self._how, parts, made_with(self._surroundings)))
            progress(done + number, total)
        return found
