"""`sparseflow train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from sparseflow.cli.progress import Reading, Show
from sparseflow.cli.setup import surroundings_for
from sparseflow.core import SparseflowError
from sparseflow.masks import load as load_masks
from sparseflow.report import write_report
from sparseflow.study import (
    ALL_TWEAKS,
    DataCache,
    Planned,
    Pool,
    RunSpec,
    Store,
    assign,
    drive,
    facts_of,
    masks_digest,
    overlay,
    read_preset,
    server_url,
    validate,
)


def run_training(
    console: Console,
    data: str,
    masks: Path | None,
    out: Path | None,
    sets: list[str],
    data_root: str | None,
    device: str,
    checkpoint_every: float,
    *,
    server: str | None,
    tost: bool,
) -> None:
    """Train one network and write its report."""
    given = read_preset(data) if data.endswith((".yaml", ".yml")) else {"data": {"name": data}}
    if tost:
        given = overlay({"tost": ALL_TWEAKS}, given)
    if masks is not None:
        found, _ = load_masks(masks)
        sets = [*sets, f"mask.file={masks}", f"mask.digest={masks_digest(found)}"]
    spec = validate(RunSpec, assign(given, sets))
    server = None if server is None else server_url(server)
    out = out or Path("runs") / f"train-{Path(data).stem}"
    surroundings = surroundings_for(out, data_root, device, checkpoint_every, keep=True)
    with Reading(console) as watch:
        facts = facts_of(spec, DataCache(surroundings, watch))
    study = (f"train-{spec.name}", "train", {"spec": spec.changes(), "facts": asdict(facts)})
    pages: list[Path] = []

    def finish(store: Store) -> None:
        pages.append(write_report(store, out))
        result = store.results().get(spec.name)
        if result is not None and "test_accuracy" in result["final"]:
            final = result["final"]
            console.print(
                f"{result['status']}: test accuracy {100 * final['test_accuracy']:.2f} %, "
                f"test loss {final['test_loss']:.4f}, {sum(result['active'].values()):,} active weights"
            )

    try:
        with Show(console, lambda run: data) as show:
            tally = drive(
                Planned([spec]),
                out,
                surroundings,
                Pool(1),
                show,
                study=study,
                facts=lambda run: facts,
                server=server,
                finish=finish,
            )
    finally:
        for page in pages:
            console.print(f"report: {page}")
    kept = surroundings.final_path(spec.name)
    if kept is not None and kept.is_file():
        console.print(f"weights and masks: {kept}")
    for error in tally.failed.values():
        raise SparseflowError(f"the run failed: {error.strip()}")
