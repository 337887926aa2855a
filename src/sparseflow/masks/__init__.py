"""Which weights are active: how many (budget, matching), and which (random selection)."""

from sparseflow.masks.budget import round_half_up, uniform
from sparseflow.masks.matching import matching_rules
from sparseflow.masks.random import random_masks
from sparseflow.masks.select import random_subset

__all__ = ["matching_rules", "random_masks", "random_subset", "round_half_up", "uniform"]
