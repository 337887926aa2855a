"""Options that several commands have, and where they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Into a file or a pipe tables are as wide as they need, not folded to a terminal's 80 columns.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)

Sets = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="A.B=VALUE", help="Change a field of the specification.")
]
Root = Annotated[
    str | None, typer.Option("--data-root", help="Folder that holds the data sets; default: $SPARSEFLOW_DATA.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Shape = Annotated[
    str, typer.Option("--input-shape", metavar="C,H,W", help="Shape of one example, where no --data says it.")
]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="Outputs of the network, where no --data says.")]
Server = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="postgresql://...: results go there; the output folder remembers it."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Output folder; default runs/NAME.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Workers at most; default: one per core, of the cluster with --ray."),
]
Asks = Annotated[str, typer.Argument(help="A preset (see `sparseflow list presets`) or a YAML file.")]
Keep = Annotated[bool, typer.Option(help="Keep every final network.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how long it takes.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT."),
]
Gpus = Annotated[
    float | None,
    typer.Option("--gpus-per-run", metavar="PART", help="Of a GPU, with --ray and --device cuda; default: 1."),
]
Every = Annotated[
    float, typer.Option("--checkpoint-every", min=0.0, metavar="SECONDS", help="Work that a kill may cost at most.")
]
