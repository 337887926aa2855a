"""The report of activation sparsity: the share of zeros in every layer's outputs (003 Table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sparseflow.core import BadStore
from sparseflow.report.analysed import write_analysis
from sparseflow.report.blocks import Figure, Section, Table, write_csv
from sparseflow.report.figures import COLOURS, MARKERS, look, panels, save
from sparseflow.study import Loaded, NetworkZeros

NAMED = 12
"""Up to so many layers are named at the axis; more have numbers."""

_CAPTION = (
    "Outputs of the activation that are exactly 0, of all outputs for all examples (003 Table 1), in evaluation mode; "
    "mean ± standard deviation over the networks of a group (n). A smooth activation such as swish has almost none."
)


def write_activations_report(
    folder: Path, found: Sequence[NetworkZeros], nets: Sequence[Loaded], settings: Mapping[str, Any]
) -> Path:
    """Write `activations.csv`, `report.html` and `figures/`; returns the path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    header = ["network", "group", "layer", "zeros", "values", "share"]
    rows = [
        [one.label, one.group, layer, at.zeros, at.values, at.share]
        for one in found
        for layer, at in one.layers.items()
    ]
    try:
        write_csv(folder / "activations.csv", header, rows)
        figure = activations_figure(found, folder / "figures", (header, rows))
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    table = Table("Activation sparsity", _CAPTION, activations_header(found), activations_cells(found))
    groups = list(dict.fromkeys(one.group for one in found))
    title = f"Activation sparsity: {', '.join(groups)}"
    subtitle = (
        f"{max(one.examples for one in found):,} {'test' if settings['split'] == 'test' else 'training'} examples"
    )
    sections = [Section("Zeros among the outputs of activations", [table, figure])]
    return write_analysis(folder, title, subtitle, sections, nets, settings)


def activations_header(found: Sequence[NetworkZeros]) -> list[str]:
    """A column for each group."""
    return ["layer", *dict.fromkeys(one.group for one in found)]


def activations_cells(found: Sequence[NetworkZeros]) -> list[list[str]]:
    """A row for each layer and one for all of them, as text; a dash where a group's networks lack it."""
    rows = [
        [layer, *(_share(found, group, layer) for group in activations_header(found)[1:])] for layer in _layers(found)
    ]
    return [*rows, ["all", *(_share(found, group, None) for group in activations_header(found)[1:])]]


def _layers(found: Sequence[NetworkZeros]) -> list[str]:
    return list(dict.fromkeys(layer for one in found for layer in one.layers))


def _share(found: Sequence[NetworkZeros], group: str, layer: str | None) -> str:
    shares = _shares(found, group, layer)
    if not shares:
        return "–"
    spread = f" ± {100 * stdev(shares):.2f} ({len(shares)})" if len(shares) > 1 else ""
    return f"{100 * fmean(shares):.2f}{spread} %"


def _shares(found: Sequence[NetworkZeros], group: str, layer: str | None) -> list[float]:
    """In [0, 1], of every network of the group that has the layer; of all layers together for None."""
    own = [one.layers for one in found if one.group == group]
    if layer is not None:
        return [layers[layer].share for layers in own if layer in layers]
    return [sum(at.zeros for at in layers.values()) / sum(at.values for at in layers.values()) for layers in own]


def activations_figure(
    found: Sequence[NetworkZeros],
    folder: Path,
    numbers: tuple[Sequence[str], Sequence[Sequence[object]]],
    name: str = "activations",
) -> Figure:
    """The shares layer by layer, a line for each group."""
    layers = _layers(found)
    with look():
        canvas, (axis,) = panels(1, width=6.4, height=3.0)
        for k, group in enumerate(activations_header(found)[1:]):
            each = {n: _shares(found, group, layer) for n, layer in enumerate(layers)}
            places = [n for n, shares in each.items() if shares]
            means = [100 * fmean(each[n]) for n in places]
            spreads = [100 * stdev(each[n]) if len(each[n]) > 1 else 0.0 for n in places]
            style: Any = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)], "label": group}
            axis.errorbar(places, means, yerr=spreads, elinewidth=0.8, **style)
        axis.set(ylim=(0, None), ylabel="zeros (%)", xlabel="layer, from the input to the output")
        if len(layers) <= NAMED:
            axis.set_xticks(range(len(layers)), layers, rotation=20 if len(layers) > 4 else 0)
        canvas.legend(loc="outside upper left", ncols=4)
        svg = save(canvas, folder, name, *numbers)
    caption = "Share of outputs that are exactly 0; bars: standard deviation over the networks of a group."
    return Figure("Activation sparsity layer by layer", caption, name, svg)
