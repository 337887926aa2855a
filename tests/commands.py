"""The command line, called from tests."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

from sparseflow.cli import main


def said(*words: object, code: int = 0) -> str:
    """What `sparseflow WORDS` prints, or the error of a command that ends with code 2."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["sparseflow", *map(str, words)]
    ended: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        ended = end.code or 0
    finally:
        sys.argv = before
    assert ended == code, (out.getvalue(), err.getvalue())
    return err.getvalue() if code == 2 else out.getvalue()
