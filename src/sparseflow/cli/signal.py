"""`sparseflow analyse signal`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from sparseflow.cli.bench import numbers
from sparseflow.cli.networks import Network, Request, network
from sparseflow.cli.progress import counting
from sparseflow.cli.setup import surroundings_for
from sparseflow.core import BadSpec, BadValue, state_digest, weight_shapes
from sparseflow.init import Scheme, initialisations
from sparseflow.masks import Provenance
from sparseflow.measure import DENSITIES, Point, Propagation, points
from sparseflow.report import SIGNAL_HEADER, signal_cells, write_signal_report
from sparseflow.study import DrawFile, Interrupted, assign
from sparseflow.study.fingerprint import fingerprint
from sparseflow.study.lock import locked

HEEDED = ("data", "init.distribution", "init.fan", "init.scheme", "model")
"""Fields of a run's specification that say something here."""


@dataclass(frozen=True)
class Wish:
    """What to draw; empty texts are the defaults."""

    densities: str = ""
    initialisations: str = ""
    draws: int = 100
    probes: int = 256
    budget: str = "uniform"
    dense: Sequence[str] = ()
    batch_norm: Literal["train", "eval"] = "train"


def run_signal(console: Console, request: Request, wish: Wish, out: Path | None) -> None:
    """Draw what is not in the folder yet, then write the tables, the figure and the page; print the table.

    Raises:
        Interrupted: on Ctrl-C, after what there is has been written.
    """
    _check_sets(request.sets)
    surroundings_for(Path(), request.data_root, request.device, 0.0, keep=False)  # a device that is not there
    found = network(request)
    if found.input_shape is None:
        raise BadValue(f"{found.name}: random inputs need a shape; give --input-shape, or --data")
    scheme = found.spec.init.scheme_object()
    options: dict[str, Any] = {
        "probes": wish.probes,
        "seed": request.seed,
        "budget": wish.budget,
        "dense": list(wish.dense),
        "batch_norm": wish.batch_norm,
    }
    propagation = Propagation(found.model, found.input_shape, scheme=scheme, **options)
    keys = propagation.keys(
        numbers("--densities", wish.densities, float) or DENSITIES,
        numbers("--initialisations", wish.initialisations, str) or initialisations.names,
        wish.draws,
    )
    settings = _settings(found, options, scheme, request.device)
    out = out or Path("runs") / f"signal-{found.name.replace(':', '.')}"
    with locked(out):
        file = DrawFile(out, settings)
        try:
            left = [key for key in keys if key not in file.found]
            if len(left) < len(keys):
                console.print(f"{len(keys) - len(left):,} of {len(keys):,} networks are there already")
            try:
                with counting(f"signal through {found.name}") as progress:
                    for done, key in enumerate(left, start=1):
                        file.add(key, propagation.draw(key))
                        progress(done, len(left))
            finally:
                ready = points({key: file.found[key] for key in keys if key in file.found})
                ready = [point for point in ready if len(point.draws) > 1]
                if ready:
                    _show(console, ready, write_signal_report(out, found.name, ready, settings))
        except KeyboardInterrupt:
            done = sum(key in file.found for key in keys)
            words = f"interrupted after {done:,} of {len(keys):,} networks; the same command goes on"
            raise Interrupted(words) from None
        finally:
            file.close()


def _check_sets(sets: Sequence[str]) -> None:
    for section, fields in assign({}, sets).items():
        whole = section != "init" or not isinstance(fields, dict)
        names = [section] if whole else [f"{section}.{name}" for name in fields]
        if strange := [name for name in names if name not in HEEDED]:
            raise BadSpec([f"--set {strange[0]}...: has no effect here (what has: {', '.join(HEEDED)})"])


def _settings(found: Network, options: dict[str, Any], scheme: Scheme, device: str) -> dict[str, Any]:
    """All that a draw depends on besides its key: a folder holds draws of one of these."""
    drawn = weight_shapes(found.model)
    rest = {name: value for name, value in found.model.state_dict().items() if name not in drawn}
    return {
        "model": found.name,
        "input_shape": list(found.input_shape or ()),
        "weights": Provenance.of(found.model).weights_digest,
        "other_values": state_digest(rest)[:16],
        **options,
        **asdict(scheme),
        "recipe": dict(found.recipe),
        "made_with": fingerprint(device, torch.get_num_threads()),
    }


def _show(console: Console, ready: Sequence[Point], page: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(SIGNAL_HEADER):
        table.add_column(column, justify="right" if number else "left")
    for cells in signal_cells(ready):
        table.add_row(*cells)
    console.print(table)
    console.print(f"report: {page}")
