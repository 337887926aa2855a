"""sparseflow: train, compare and understand sparse neural networks."""

__version__ = "0.1.0.dev0"
