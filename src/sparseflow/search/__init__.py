"""Search over layer densities (001 ch. 4): spaces, samplers, early stopping, and what the found vectors say."""

from sparseflow.search.samplers import Suggestion, samplers, suggest
from sparseflow.search.space import Space, Vector

__all__ = ["Space", "Suggestion", "Vector", "samplers", "suggest"]
