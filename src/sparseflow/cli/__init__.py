"""The command line."""

from sparseflow.cli.app import app, main

__all__ = ["app", "main"]
