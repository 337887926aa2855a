"""Random tickets: the layers' densities of a mask without its places."""

from __future__ import annotations

from torch import Tensor

from sparseflow.core import Masks, stream_seed
from sparseflow.masks.select import random_masks


def shuffled(masks: Masks, seed: int = 0) -> dict[str, Tensor]:
    """Each mask with its active weights moved to random places of the same layer (Su et al. 2020, arXiv:2009.11094)."""
    shapes = {name: mask.shape for name, mask in masks.items()}
    counts = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    own = stream_seed(seed, "shuffled")  # a random mask drawn with the same seed is moved as well
    return {name: new.to(masks[name].device) for name, new in random_masks(shapes, counts, own).items()}
