"""`sparseflow masks`: what a mask file holds, and how two of them compare."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparseflow.cli.networks import Network, Request, network, rebuilt
from sparseflow.core import BadData, Masks, SparseflowError, check_masks, weight_shapes
from sparseflow.masks import Overlap, Provenance, effective, imported, load, overlap, total_overlap
from sparseflow.report import LAYER_HEADER, OVERLAP_HEADER, MaskSet, overlap_cells, total_cells, write_mask_report

SHOWN = 24
"""Tables of more layers show the first and the last ones."""


def run_masks(
    console: Console, files: list[Path], request: Request | None, report: Path | None, *, everything: bool
) -> None:
    """Print one mask file or the comparison of two; write the report if a folder is given.

    Args:
        request: the model they were made for; by default the one that a file's recipe names.
    """
    given = network(request) if request is not None else None
    sets = [_opened(path, given) for path in files]
    for masks in sets:
        if len(sets) > 1:
            console.print(f"[bold]{escape(masks.label)}[/]")
        print_masks(console, masks, everything=everything)
        _print_provenance(console, masks.provenance)
    if len(sets) == 2:
        _print_overlap(console, overlap(sets[0].masks, sets[1].masks), everything=everything)
    if report is not None:
        console.print(f"report: {write_mask_report(report, sets)}")


def followed(label: str, masks: Masks, provenance: Provenance, found: Network | None) -> MaskSet:
    """The masks with what of them lies on paths, or with the reason why that is not known."""
    try:
        found = found or rebuilt(provenance.recipe)
        if found.input_shape is None:
            return MaskSet(label, masks, provenance, None, "the shape of the inputs is not given; give --input-shape")
        return MaskSet(label, masks, provenance, effective(found.model, masks, found.input_shape))
    except SparseflowError as error:
        return MaskSet(label, masks, provenance, None, str(error))


def print_masks(console: Console, masks: MaskSet, *, everything: bool = False) -> None:
    """The layers as a table, the totals, and what is collapsed."""
    rows = masks.layers
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    columns = len(LAYER_HEADER) if masks.paths else 4
    for column in LAYER_HEADER[:columns]:
        table.add_column(column, justify="right")
    cells = [[escape(row.label), *row.cells()] for row in rows]
    for line in [*_folded(cells, everything=everything), ["total", *total_cells(rows)]]:
        table.add_row(*line[: columns + 1])
    console.print(table)
    if masks.paths is None:
        console.print(f"note: which weights lie on paths is not known: {escape(masks.why_no_paths)}")
    if collapsed := [row.label for row in rows if row.collapsed]:
        console.print(f"[bold red]collapsed:[/] nothing passes {_some(collapsed)}")


def _opened(path: Path, given: Network | None) -> MaskSet:
    """A mask file, or masks that others left in a state_dict."""
    model = given.model if given else None
    if path.suffix in (".pt", ".pth"):
        masks, provenance = imported(path), Provenance()
    else:
        try:
            masks, provenance = load(path, model)
        except BadData as error:
            if "this is no mask file" not in str(error):
                raise
            masks, provenance = imported(path), Provenance()
    if model is not None:
        check_masks(model, masks)
        if not provenance.weights:
            provenance = Provenance(weights=weight_shapes(model))
    return followed(path.name, masks, provenance, given)


def _print_provenance(console: Console, p: Provenance) -> None:
    facts = {
        "model": p.model,
        "criterion": p.criterion,
        "budget": p.budget,
        "density": p.density,
        "rounds": p.rounds,
        "seed": p.seed,
        **p.options,
        "data": p.data,
    }
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in ("", None))
    if known:
        console.print(escape(f"made of: {known}; {p.made_with}, {p.date}"))
    else:
        console.print("the file does not say how its masks were made")


def _print_overlap(console: Console, layers: dict[str, Overlap], *, everything: bool) -> None:
    table = Table(title="Overlap", title_justify="left", box=None, pad_edge=False)
    table.add_column("layer")
    for column in OVERLAP_HEADER:
        table.add_column(column, justify="right")
    cells = [[escape(name.removesuffix(".weight")), *overlap_cells(part)] for name, part in layers.items()]
    for line in [*_folded(cells, everything=everything), ["total", *overlap_cells(total_overlap(layers))]]:
        table.add_row(*line)
    console.print(table)


def _folded(lines: list[list[str]], *, everything: bool) -> list[list[str]]:
    if everything or len(lines) <= SHOWN:
        return lines
    ends = SHOWN // 2 - 1
    gap = [f"... {len(lines) - 2 * ends} more"] + [""] * (len(lines[0]) - 1)
    return [*lines[:ends], gap, *lines[-ends:]]


def _some(names: list[str], shown: int = 8) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
