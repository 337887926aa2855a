"""ToST (003): ghosts that help a sparse network through the first part of training and leave the original behind."""

from torch import nn

from sparseflow.tost.fade import Fade, fades, until
from sparseflow.tost.ghosts import Ghosts
from sparseflow.tost.neurons import BETA_MAX, GhostNeurons, ghost_neurons_, remove_neurons_
from sparseflow.tost.skips import GhostSkips, ghost_skips_, pooled_identity, remove_skips_

__all__ = [
    "BETA_MAX",
    "Fade",
    "GhostNeurons",
    "GhostSkips",
    "Ghosts",
    "fades",
    "ghost_neurons_",
    "ghost_skips_",
    "pooled_identity",
    "remove_",
    "until",
]


def remove_(model: nn.Module) -> nn.Module:
    """Take all ghosts out of a model that no `Ghosts` object is at hand for, such as a copy made meanwhile."""
    remove_neurons_(model)
    remove_skips_(model)
    return model
