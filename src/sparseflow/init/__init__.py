"""Initial values of weights, drawn from named streams for the active weights alone."""

from sparseflow.init.draw import Scheme, distributions, fans, schemes
from sparseflow.init.matched import draw_active_, from_twin_

__all__ = ["Scheme", "distributions", "draw_active_", "fans", "from_twin_", "schemes"]
