"""Active weights drawn with the fans of another layer: the dense twin's (001 eq. 3.3)."""

from __future__ import annotations

from torch import nn

from sparseflow.core import Masks, Shapes, active_counts, set_active, stand_ins, stream, weight_shapes, weight_values
from sparseflow.init.draw import Scheme


def draw_active_(
    model: nn.Module, masks: Masks, scheme: Scheme | None = None, *, fans_of: Shapes | None = None, seed: int = 0
) -> None:
    """Draw every weight of the model anew; masked weights become exactly 0.

    A layer's draw depends on (seed, its name, its dense shape) and its number of active weights alone, so masked and
    compact execution start from the same values.

    Args:
        masks: the masks of layers in masked execution (compact layers know their own).
        scheme: He normal with fan-in by default.
        fans_of: weight name -> the dense shape whose fans set the variance; the layer's own shape by default.
    """
    scheme = scheme or Scheme()
    shapes, carriers, counts = weight_shapes(model), weight_values(model), active_counts(model, masks)
    compact = stand_ins(model)
    for name, shape in shapes.items():
        formula = (fans_of or shapes)[name]
        generator = stream(seed, "init", name, *shape)
        draw = scheme.draw(scheme.deviation(formula), counts[name], generator, carriers[name].dtype)
        set_active(model, name, draw, None if name in compact else masks.get(name))


def from_twin_(model: nn.Module, masks: Masks, twin: Shapes, scheme: Scheme | None = None, *, seed: int = 0) -> None:
    """Draw the active weights of a sparse network from the distribution of its dense twin (001 eq. 3.3, 000 eq. 3).

    Args:
        twin: weight name -> shape of the twin's weight.
    """
    draw_active_(model, masks, scheme, fans_of=twin, seed=seed)
