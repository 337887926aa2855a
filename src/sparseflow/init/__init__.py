"""Initial values of weights, drawn from named streams for the active weights alone."""

from sparseflow.init.draw import Scheme, distributions, fans, schemes
from sparseflow.init.matched import draw_active_, from_twin_
from sparseflow.init.rescale import Rescaling, rescale_
from sparseflow.init.sparse_aware import draw_, fan_counts, from_fans_, initialisations

__all__ = [
    "Rescaling",
    "Scheme",
    "distributions",
    "draw_",
    "draw_active_",
    "fan_counts",
    "fans",
    "from_fans_",
    "from_twin_",
    "initialisations",
    "rescale_",
    "schemes",
]
