"""The report of mask files: where they are dense, what of them has an effect, how they overlap, how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from sparseflow.core import BadStore
from sparseflow.masks import Overlap, overlap, total_overlap
from sparseflow.report.blocks import Block, Section, Table, Text, Value
from sparseflow.report.mask_figures import NAMED, density_figure, overlap_figure
from sparseflow.report.mask_layers import LAYER_HEADER, MaskSet, total_cells
from sparseflow.report.page import write_page

PAGE = "masks.html"
"""Not report.html: a folder may hold a study's report too."""


def write_mask_report(folder: Path, sets: Sequence[MaskSet]) -> Path:
    """Write `masks.html` and its `figures/` (SVG, PDF, CSV) for one set of masks, or for two and their overlap.

    Returns:
        The path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    title = " against ".join(masks.label for masks in sets)
    try:
        sections = mask_sections(sets, folder / "figures")
        write_page(folder / PAGE, f"Masks: {title}", _subtitle(sets), sections)
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    return folder / PAGE


def mask_sections(sets: Sequence[MaskSet], figures: Path) -> list[Section]:
    """The sections of a page on one or two sets of masks; their figures are saved into `figures`."""
    several = len(sets) > 1
    sections = []
    if several:
        first, second = sets
        sections.append(Section("Overlap", _overlap_blocks(first, second, figures)))
    for number, masks in enumerate(sets, start=1):
        name = f"density-{number}" if several else "density"
        sections.append(Section(f"Layers, {masks.label}" if several else "Layers", _layer_blocks(masks, figures, name)))
    sections.append(Section("Provenance", [block for masks in sets for block in _provenance(masks)]))
    return sections


def overlap_cells(part: Overlap) -> list[str]:
    """Active in either, in both, Jaccard, shares, and what chance gives: as text."""
    z = part.deviations
    return [
        f"{part.first:,}",
        f"{part.second:,}",
        f"{part.both:,}",
        f"{part.jaccard:.3f}",
        f"{100 * part.share_of_first:.1f} %",
        f"{100 * part.share_of_second:.1f} %",
        f"{part.expected:,.1f} ± {part.deviation:,.1f}",
        "–" if z is None else f"{z:+,.1f}",
    ]


OVERLAP_HEADER = ("first", "second", "both", "Jaccard", "of the first", "of the second", "by chance", "deviations")


def _subtitle(sets: Sequence[MaskSet]) -> str:
    return "; ".join(dict.fromkeys(masks.provenance.model or "model not named" for masks in sets))


def _layer_blocks(masks: MaskSet, figures: Path, name: str) -> list[Block]:
    rows = masks.layers
    blocks: list[Block] = [density_figure(masks, figures, name)]
    if masks.paths is None:
        blocks.append(Text(f"Which weights lie on paths is not known: {masks.why_no_paths}."))
    blocks.append(Text(_totals(masks)))
    table = [[row.label, *row.cells()] for row in rows]
    total = [Value(cell, strong=True) for cell in total_cells(rows)]
    caption = (
        "Effective weights lie on a path from an input to an output; dead units (of all) are reached by no "
        "input, unreachable ones are and lead to no output; a layer is collapsed when nothing passes it."
    )
    lines: list[Sequence[Value | str]] = [*table, ["total", *total]]
    blocks.append(_by_layer(f"Layers of {masks.label}", caption, LAYER_HEADER, lines))
    return blocks


def _totals(masks: MaskSet) -> str:
    """The network in one sentence."""
    rows = masks.layers
    active, weights = sum(row.active for row in rows), sum(row.weights for row in rows)
    words = f"{active:,} of {weights:,} weights in {len(rows)} layers are active, a density of {active / weights:.4g}"
    if masks.paths:
        words += f"; {masks.paths.effective_density:.4g} of all weights lie on a path from an input to an output"
    dense = [row.label for row in rows if row.dense]
    collapsed = [row.label for row in rows if row.collapsed]
    words += f". Dense: {', '.join(dense)}" if dense else ""
    return words + (f". Collapsed: {', '.join(collapsed)}." if collapsed else ". No layer is collapsed.")


def _overlap_blocks(first: MaskSet, second: MaskSet, figures: Path) -> list[Block]:
    layers = overlap(first.masks, second.masks)
    everything = total_overlap(layers)
    rows: list[list[Value | str]] = [[n.removesuffix(".weight"), *overlap_cells(p)] for n, p in layers.items()]
    rows.append(["total", *(Value(cell, strong=True) for cell in overlap_cells(everything))])
    caption = (
        f"First: {first.label}, second: {second.label}. By chance: mean ± standard deviation of the overlap of "
        "uniformly random masks with the same number of active weights in each layer (hypergeometric); deviations: "
        "how many of the latter the overlap lies above it."
    )
    figure = overlap_figure(layers, first.label, second.label, figures)
    words = (
        f"{everything.both:,} of the {everything.first:,} active weights of {first.label} "
        f"({100 * everything.share_of_first:.1f} %) are active in {second.label}; random masks share "
        f"{everything.expected:,.1f} ± {everything.deviation:,.1f}."
    )
    return [figure, Text(words), _by_layer("Overlap of the two masks", caption, OVERLAP_HEADER, rows)]


def _by_layer(title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Value | str]]) -> Table:
    """A row for each layer and a last one for all; of many layers numbered, as the charts are, and folded."""
    if len(rows) - 1 <= NAMED:
        return Table(title, caption, ("layer", *header), rows)
    numbered = [[str(k) if k < len(rows) else "", *row] for k, row in enumerate(rows, start=1)]
    return Table(title, caption, ("", "layer", *header), numbered, labels=2, folded=True)


def _provenance(masks: MaskSet) -> list[Block]:
    p = masks.provenance
    facts: list[tuple[str, object]] = [
        ("model", p.model),
        ("digest of its weights' names and shapes", p.weights_digest),
        ("criterion", p.criterion),
        ("budget", p.budget),
        ("density asked for", p.density),
        ("rounds", p.rounds),
        ("seed", p.seed),
        ("options", ", ".join(f"{name} = {value}" for name, value in p.options.items())),
        ("data", p.data),
        ("digest of the data", p.data_digest),
        ("made with", p.made_with),
        ("date", p.date),
    ]
    rows = [[what, str(value)] for what, value in facts if value not in ("", None)]
    if not rows:
        return [Text(f"{masks.label} does not say how it was made.")]
    blocks: list[Block] = [Table(f"How {masks.label} was made", "", ["", ""], rows)]
    if p.recipe:
        recipe = yaml.safe_dump(dict(p.recipe), sort_keys=False, allow_unicode=True).strip()
        blocks.append(Text(f"Recipe of the model:\n{recipe}", kind="code"))
    return blocks
