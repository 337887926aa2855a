"""The figure of searches at several depths (001 Figures 4.4 and 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure as Canvas

from sparseflow.report.blocks import Figure
from sparseflow.report.figures import COLOURS, MARKERS, look, save
from sparseflow.report.search_tables import Afterwards, Known
from sparseflow.search import Found


def depth_figures(found: Sequence[Found], after: Sequence[Afterwards], known: Known, folder: Path) -> list[Figure]:
    """Accuracies and active weights of winners and of the dense network, by depth; a row of panels a data set."""
    places = [_Place.of(one) for one in found]
    depths = sorted({place.depth for place in places if place.depth is not None})
    if len(depths) < 2 or any(place.depth is None for place in places):
        return []
    everything = [known[m.run] for then in after for r in then.results for m in r.counted if m.run in known]
    learned = any("train_accuracy" in run["final"] for run in everything)
    quantities: list[tuple[str, Callable[[Mapping[str, Any]], float | None]]] = [
        ("test accuracy (%)", lambda run: 100 * run["final"]["test_accuracy"]),
        ("training accuracy (%)", _training_accuracy)
        if learned
        else ("training loss", lambda run: run["final"].get("train_loss")),
        ("active weights", lambda run: float(sum(run["active"].values()))),
    ]
    datasets = list(dict.fromkeys(place.data for place in places))
    samplers = list(dict.fromkeys(place.sampler for place in places))
    rows: list[list[object]] = []
    with look():
        canvas = Canvas(figsize=(3.1 * len(quantities), 2.5 * len(datasets) + 0.3), layout="constrained")
        grid = canvas.subplots(len(datasets), len(quantities), squeeze=False, sharex=True)
        for line, data in zip(grid, datasets, strict=True):
            for axis, (what, of) in zip(line, quantities, strict=True):
                for k, sampler in enumerate((None, *samplers)):
                    by_depth = {
                        depth: _last_runs(found, after, places, known, (data, depth), sampler) for depth in depths
                    }
                    values = {
                        depth: [v for run in runs if run["status"] == "finished" and (v := of(run)) is not None]
                        for depth, runs in by_depth.items()
                    }
                    x = [depth for depth in depths if values[depth]]
                    if not x:
                        continue
                    mean = [fmean(values[d]) for d in x]
                    spread = [stdev(values[d]) if len(values[d]) > 1 else 0.0 for d in x]
                    name = sampler or "dense"
                    axis.errorbar(x, mean, yerr=spread, color=COLOURS[k], marker=MARKERS[k], capsize=2, label=name)
                    rows += [[data, what, name, d, m, s] for d, m, s in zip(x, mean, spread, strict=True)]
                axis.set_ylabel(what)
                axis.set_xscale("log", base=2)
                axis.set_xticks(depths)
                axis.set_xticklabels([str(d) for d in depths])
                axis.minorticks_off()
            line[-1].set_yscale("log")
            if len(datasets) > 1:
                line[0].set_title(data, loc="left")
        for axis in grid[-1]:
            axis.set_xlabel("hidden layers")
        handles, labels = grid[0][0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=max(1, len(handles)))
        svg = save(canvas, folder, "search-depth", ["data", "quantity", "arm", "depth", "mean", "std"], rows)
    caption = (
        "001 Figures 4.4 and 4.5. Dense, and the winner of each kind of search: of those with one density for all "
        "layers and with one for each, the one of the higher score. Means and standard deviations of the runs after "
        "the search."
    )
    if learned:
        caption += " Training accuracy: on the probe's examples, without augmentation and dropout."
    return [Figure("By depth", caption, "search-depth", svg)]


@dataclass(frozen=True)
class _Place:
    """Where a search stands in the figure by depth."""

    data: str
    depth: int | None
    sampler: str

    @classmethod
    def of(cls, found: Found) -> _Place:
        run = found.quest.spec.plain()
        return cls(run.data.name, run.model.depth, found.quest.spec.sampler.name)


def _training_accuracy(run: Mapping[str, Any]) -> float | None:
    share = run["final"].get("train_accuracy")
    return None if share is None else 100 * share


def _last_runs(
    found: Sequence[Found],
    after: Sequence[Afterwards],
    places: Sequence[_Place],
    known: Known,
    at: tuple[str, int],
    sampler: str | None,
) -> list[Mapping[str, Any]]:
    """Of the winners that a sampler found for this data and depth, one for each seed of the search.

    Of the dense network for None.
    """
    here: dict[int, list[tuple[float, Afterwards]]] = {}
    for one, then, place in zip(found, after, places, strict=True):
        if (place.data, place.depth) == at and sampler in (None, place.sampler) and one.winner is not None:
            here.setdefault(one.quest.spec.seed, []).append((one.winner.score, then))
    runs: dict[str, Mapping[str, Any]] = {}
    for of_seed in here.values():
        _, then = max(of_seed, key=lambda pair: pair[0])
        result = then.of("dense" if sampler is None else "winner")
        runs |= {m.run: known[m.run] for m in result.counted if m.run in known} if result is not None else {}
    return list(runs.values())
