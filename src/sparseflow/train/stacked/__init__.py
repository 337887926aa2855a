"""Stacked training: small networks of equal shape trained together, each as if it were alone."""

from sparseflow.train.stacked.stack import Stack, obstacle

__all__ = ["Stack", "obstacle"]
