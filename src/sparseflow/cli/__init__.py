"""The command line."""

from sparseflow.cli.main import main

__all__ = ["main"]
