"""Activation sparsity, layer by layer, of the arms of a study (003 Table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from sparseflow.report.arms_figures import Material, groups
from sparseflow.report.blocks import Block, Figure, Table, Value
from sparseflow.report.figures import COLOURS, look, rows_of_panels, save
from sparseflow.report.formats import spread_text
from sparseflow.report.registry import Study
from sparseflow.stats import summary
from sparseflow.study import ArmResult, FactsOf, module_names

METRIC = "activation_sparsity"

Shares = Mapping[str, Mapping[str, Sequence[float]]]
"""Arm -> layer ("" for all together) -> share of zeros at the last point, of each run."""


def blocks(study: Study, material: Material, facts: FactsOf) -> list[Block]:
    """The table and the figure; nothing where activations were not measured."""
    shares = last_shares(study, material.results, facts)
    return [share_table(shares), share_figure(shares, material)] if shares else []


def last_shares(study: Study, results: Sequence[ArmResult], facts: FactsOf) -> Shares:
    """What each arm's runs measured last, layers in the model's order; arms without such a measurement are left out."""
    last: dict[str, dict[str, float]] = {}
    for run, _, _, layer, _, value in study.store.values([METRIC]):  # in order of the steps
        last.setdefault(run, {})[layer] = value
    found: dict[str, dict[str, list[float]]] = {}
    for r in results:
        measured = [last[member.run] for member in r.members if member.run in last]
        if not measured or r.choice.winner is None:
            continue
        spec = r.choice.winner.spec
        names = module_names(spec, facts(spec).input_shape, facts(spec).classes)
        place = {name: k for k, name in enumerate(names)}
        ordered = sorted(measured[0], key=lambda layer: (place.get(layer.partition("[")[0], -1), layer))
        found[r.arm.name] = {layer: [run[layer] for run in measured if layer in run] for layer in ordered}
    return found


def share_table(shares: Shares) -> Table:
    """A line an arm, a column all layers together and the layers at the quarters of the network's depth."""
    rows: list[list[Value | str]] = []
    for arm, layers in shares.items():
        named = [name for name in layers if name]
        parts = [named[len(named) * k // 4 : ceil(len(named) * (k + 1) / 4)] for k in range(4)]
        quarters = [[value for name in part for value in layers[name]] for part in parts]
        cells = [layers.get("", []), *quarters]
        rows.append([arm, *(spread_text([100 * v for v in values], 1) if values else "\u2013" for values in cells)])
    caption = (
        "Percent of activation outputs that are exactly 0, in evaluation mode on the probe, at the last point: "
        "mean ± standard deviation (number of values). Quarters: of the activations in the model's order, each layer "
        "of each run a value. figures/activations.csv has every layer."
    )
    header = ["arm", "all (%)", "first quarter", "second", "third", "last quarter"]
    return Table("Activation sparsity", caption, header, rows)


def share_figure(shares: Shares, material: Material) -> Figure:
    """Share of zeros against the layer's place in the network, a line an arm with one standard deviation."""
    shown = [g for g in groups(material.results, material.panels) if any(r.arm.name in shares for _, r in g.arms)]
    rows: list[list[object]] = []
    with look():
        canvas, axes = rows_of_panels(len(shown), 1, width=6.2, height=2.6)
        for (axis,), group in zip(axes, shown, strict=True):
            for k, (label, r) in enumerate(group.arms):
                layers = {name: v for name, v in shares.get(r.arm.name, {}).items() if name}
                if not layers:
                    continue
                found = [summary([100 * v for v in values]) for values in layers.values()]
                spread = [s.std if s.n > 1 else 0.0 for s in found]
                places, mean = list(range(1, len(found) + 1)), [s.mean for s in found]
                axis.plot(places, mean, color=COLOURS[k], label=label, marker=".")
                low, high = ([m + sign * d for m, d in zip(mean, spread, strict=True)] for sign in (-1, 1))
                axis.fill_between(places, low, high, color=COLOURS[k], alpha=0.18, linewidth=0)
                rows += [[r.arm.name, name, s.mean, d, s.n] for name, s, d in zip(layers, found, spread, strict=True)]
            axis.set_ylabel("zeros (%)")
            axis.legend(title=group.title or None, loc="center left", bbox_to_anchor=(1.02, 0.5), alignment="left")
        axes[-1][0].set_xlabel("activation, in the model's order")
        svg = save(canvas, material.folder, "activations", ["arm", "layer", "mean_percent", "std", "n"], rows)
    return Figure(
        "Activation sparsity along the network", "Mean and one standard deviation over seeds.", "activations", svg
    )
