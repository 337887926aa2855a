"""Entry point of the command line."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run a command: errors that a user can mend are one message and exit status 2, an interrupt is 130."""
    # Batch systems and `timeout` end a command so: it stops as cleanly as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Networks as small as most here are slower with more threads, and far slower where other work waits for the cores:
    # OpenMP's threads spin. Read when torch is loaded; who wants more says so.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        _run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run() -> None:
    # Imported here: loading torch takes seconds, and an interrupt meanwhile should end quietly too.
    from rich.console import Console
    from rich.markup import escape

    from sparseflow.cli.app import app
    from sparseflow.core import SparseflowError, keep_freed_memory
    from sparseflow.study import Interrupted

    keep_freed_memory()
    try:
        app()
    except Interrupted as error:
        Console(highlight=False, soft_wrap=True).print(str(error))
        raise SystemExit(130) from None
    except SparseflowError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        raise SystemExit(2) from None
