"""Analyses of finished networks; a new kind of figure is one function with an entry in `analyses`."""

from sparseflow.reproduce.analyses import landscapes as _landscapes  # noqa: F401  (enters its analyses)
from sparseflow.reproduce.analyses import spectra as _spectra  # noqa: F401
from sparseflow.reproduce.analyses.registry import Analysis, analyses, effort_of

__all__ = ["Analysis", "analyses", "effort_of"]
