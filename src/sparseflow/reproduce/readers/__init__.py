"""Readers of the papers' tables; a new kind of table is one function with an entry in `readers`."""

from sparseflow.reproduce.readers import gains as _gains  # noqa: F401
from sparseflow.reproduce.readers import layers as _layers  # noqa: F401
from sparseflow.reproduce.readers import likeness as _likeness  # noqa: F401
from sparseflow.reproduce.readers import means as _means  # noqa: F401  (enters its readers)
from sparseflow.reproduce.readers import pairs as _pairs  # noqa: F401
from sparseflow.reproduce.readers import search as _search  # noqa: F401
from sparseflow.reproduce.readers import settings as _settings  # noqa: F401
from sparseflow.reproduce.readers.registry import Reader, readers

__all__ = ["Reader", "readers"]
